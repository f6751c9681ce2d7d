// headrace_score DENSITY ROWSprints the log density of each row of a table, in nats, one on each line.
//
// A row has the features, then the context, separated by commas; a first line that does not begin with a number has
// names of columns. Rows are scored one after another, so that a table may be larger than memory.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "headrace.hpp"

namespace {

bool read_numbers(const std::string& line, std::vector<double>& numbers) {
    std::istringstream stream(line);
    stream.imbue(std::locale::classic());
    numbers.clear();
    for (std::string field; std::getline(stream, field, ',');) {
        std::istringstream own(field);
        own.imbue(std::locale::classic());
        double value = 0.0;
        if (!(own >> value) || !(own >> std::ws).eof()) return false;
        numbers.push_back(value);
    }
    return true;
}

void score(const char* density, const char* table) {
    const auto flow = headrace::Flow<double>::load(density);
    const std::size_t features = static_cast<std::size_t>(flow.features()),
                      columns = features + static_cast<std::size_t>(flow.context());
    std::ifstream stream(table);
    if (!stream) throw std::runtime_error(std::string(table) + ": expected a file that can be read");
    std::string line;
    std::vector<double> row;
    for (std::size_t number = 1; std::getline(stream, line); ++number) {
        if (!line.empty() && line.back() == '\r') line.pop_back();
        if (line.empty()) continue;
        const bool are_numbers = read_numbers(line, row);
        if (!are_numbers && number == 1) continue;
        if (!are_numbers || row.size() != columns)
            throw std::runtime_error(std::string(table) + ", line " + std::to_string(number) + ": expected " +
                                     std::to_string(columns) + " numbers with commas between them");
        double log_prob = 0.0;
        flow.log_prob(row.data(), 1, &log_prob, row.data() + features, flow.context() ? 1 : 0);
        std::printf("%.17g\n", log_prob);
    }
}

}  // namespace

int main(int n, char** arguments) {
    if (n != 3) {
        std::fprintf(stderr, "usage: headrace_score DENSITY.safetensors ROWS.csv\n");
        return 2;
    }
    try {
        score(arguments[1], arguments[2]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "headrace_score: error: %s\n", error.what());
        return 1;
    }
    return 0;
}
