// Runs one planted bug in a separate process, under AddressSanitizer: planted BUG [ORDER].
#include <cstdio>
#include <cstdlib>

#include "cuda_emulation.hpp"
#include "planted.hpp"

int main(int n, char** arguments) {
    if (n > 2) emu::schedule(std::atoi(arguments[2]));
    try {
        for (float value : planted(n > 1 ? arguments[1] : "")) std::printf("%g\n", double(value));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
