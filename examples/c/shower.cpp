// shower DENSITY.safetensors SEED: showers in the voxels of a calorimeter, from a density of voxels that is conditional
// on particles. Standard input has a particle a line, the energy and further values of the context, and an empty line
// ends an event; a shower a line is printed.
//
//     c++ -std=c++20 shower.cpp $(python -m headrace.config --cflags --libs) -o shower
//
// `FastShowers` has the shape of the hook of a detector simulation. In Geant4 the methods of `FastShowers` are called
// in a `G4VFastSimulationModel` (`takes` in `ModelTrigger`, `add` in `DoIt`, which ends the track) and in a
// `G4UserEventAction` (`draw` at the end of an event).
#include <headrace_library.hpp>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>

namespace {

// The class keeps particles until the end of the event, because showers of many particles at once take a fraction of
// the time of single ones. The bits of a shower depend on its index in the endless sample of the seed, not on the
// batch.
class FastShowers {
  public:
    FastShowers(const char* path, std::uint64_t seed, double least_energy)
        : flow_(path), seed_(seed), least_energy_(least_energy) {}

    std::size_t voxels() const { return flow_.features(); }
    bool takes(const std::vector<float>& particle) const {
        return particle.size() == flow_.context() && particle[0] >= least_energy_;
    }
    void add(const std::vector<float>& particle) {
        particles_.insert(particles_.end(), particle.begin(), particle.end());
    }
    // The showers of the particles since the last call, one after another; the memory is valid until the next call.
    const std::vector<float>& draw() {
        const std::size_t n = particles_.size() / flow_.context();
        showers_.resize(n * voxels());
        if (n) flow_.sample_into(showers_, seed_, particles_, first_);
        first_ += static_cast<std::int64_t>(n);
        particles_.clear();
        return showers_;
    }

  private:
    const headrace::library::Flow<float> flow_;
    const std::uint64_t seed_;
    const double least_energy_;
    std::int64_t first_ = 0;
    std::vector<float> particles_, showers_;
};

void print(const std::vector<float>& showers, std::size_t voxels) {
    for (std::size_t i = 0; i < showers.size(); ++i)
        std::printf("%.9g%c", static_cast<double>(showers[i]), (i + 1) % voxels ? ',' : '\n');
}

void simulate(FastShowers showers) {
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream values(line);
        const std::vector<float> particle(std::istream_iterator<float>(values), {});
        if (particle.empty()) {
            print(showers.draw(), showers.voxels());
        } else if (showers.takes(particle)) {
            showers.add(particle);
        } else {
            std::puts("tracked in detail");
        }
    }
    print(showers.draw(), showers.voxels());
}

}  // namespace

int main(int n, char** arguments) {
    if (n != 3) {
        std::fprintf(stderr, "usage: shower DENSITY.safetensors SEED\n");
        return 2;
    }
    try {
        simulate(FastShowers(arguments[1], std::strtoull(arguments[2], nullptr, 10), 1.0));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "shower: error: %s\n", error.what());
        return 1;
    }
    return 0;
}
