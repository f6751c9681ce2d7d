// The instructions bra, call, ret and exit, and the table of all opcodes.
#include <algorithm>
#include <sstream>

#include "decode.hpp"

namespace ptx {
namespace {

void decode_branch(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (opcode.type != "bra" && opcode.type != "uni") opcode.unknown();
    i.flow = Flow::branch;
    names.jump_to(i, only_word(o, 0));
}
void decode_return(Instruction& i, Opcode& opcode, const Operands&, Names& names) {
    if (opcode.type != opcode.name && opcode.type != "uni") opcode.unknown();
    i.flow = Flow::leave;
    i.target = opcode.name == "exit" ? 0 : names.function();  // function 0 is the kernel, whose lanes end
}
std::vector<std::string> names_in(const std::vector<std::string>& words) {
    std::vector<std::string> found;
    for (const std::string& word : words)
        if (word != "(" && word != ")" && word != ",") found.push_back(word);
    return found;
}
void decode_call(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (opcode.type != "call" && opcode.type != "uni") opcode.unknown();
    i.flow = Flow::call;
    size_t n = 0;
    std::vector<std::string> results;
    if (o.at(0).at(0) == "(") results = names_in(o[n++]);
    const std::string& callee = only_word(o, n++);
    names.call(i, callee, results, n < o.size() ? names_in(o[n]) : std::vector<std::string>{});
}

}  // namespace

void add_control(std::map<std::string, Decode>& decoders) {
    decoders["bra"] = &decode_branch;
    decoders["ret"] = &decode_return;
    decoders["exit"] = &decode_return;
    decoders["call"] = &decode_call;
}

const std::map<std::string, Decode>& decoders() {
    static const std::map<std::string, Decode> table = [] {
        std::map<std::string, Decode> all;
        add_arithmetic(all);
        add_conversions(all);
        add_comparisons(all);  // after add_arithmetic, because `and` and other opcodes are also for predicates
        add_accesses(all);
        add_control(all);
        add_warp_operations(all);
        return all;
    }();
    return table;
}

// ---- opcodes -----------------------------------------------------------------------------------------------------

Opcode::Opcode(const std::string& text_) : text(text_) {
    std::stringstream parts(text);
    std::getline(parts, name, '.');
    for (std::string part; std::getline(parts, part, '.');) modifiers.push_back(part);
    type = name;
    if (!modifiers.empty()) {
        type = modifiers.back();
        modifiers.pop_back();
    }
}
bool Opcode::take(const std::string& modifier) {
    const auto found = std::find(modifiers.begin(), modifiers.end(), modifier);
    if (found == modifiers.end()) return false;
    modifiers.erase(found);
    return true;
}
std::string Opcode::take_one_of(const std::vector<std::string>& choices) {
    for (const std::string& one : choices)
        if (take(one)) return one;
    unknown();
}
void Opcode::unknown() const {
    throw Error("an instruction that the interpreter does not know: " + text);
}
bool Opcode::is_wide_type(const std::string& type) {
    return type.size() == 3 && type.substr(1) == "64";
}

const std::string& only_word(const Operands& operands, size_t n) {
    if (n >= operands.size() || operands[n].size() != 1)
        throw Error("expected one word as operand " + std::to_string(n));
    return operands[n][0];
}

}  // namespace ptx
