// Decodes an instruction's words to its implementation. Each family of opcodes has a separate source.
#pragma once

#include <map>
#include <optional>
#include <set>

#include "program.hpp"

namespace ptx {

// The names of a function's registers, parameters and variables, and their offsets.
class Names {
  public:
    virtual ~Names() = default;
    virtual bool is_register(const std::string& name) const = 0;
    virtual bool is_wide(const std::string& name) const = 0;  // whether a register has eight bytes
    // The offset of a register or a constant, of four or of eight bytes.
    virtual int operand(const std::string& name, bool wide) = 0;
    virtual int either_size(const std::string& name) = 0;  // offset of a register of any size
    virtual int predicate(const std::string& name) = 0;
    virtual int unused(bool wide) = 0;  // offset of a register without readers
    // Sets the target of a jump to a label, or of a call to a function, which is resolved when all code is read.
    virtual void jump_to(Instruction& i, const std::string& label) = 0;
    virtual void call(Instruction& i, const std::string& function, const std::vector<std::string>& results,
                      const std::vector<std::string>& given) = 0;
    // Whether a name is a variable, in the parameters of a kernel or a call or in shared memory; sets the variable's
    // space and offset.
    virtual bool variable(const std::string& name, Space& space, int64_t& offset) = 0;
    virtual int function() const = 0;
};

// An opcode with its modifiers, each of which the decoder must take.
struct Opcode {
    std::string text, name, type;
    std::vector<std::string> modifiers;

    explicit Opcode(const std::string& text);
    bool take(const std::string& modifier);
    // The modifier of the opcode that is among the choices; an opcode without such a modifier is an error.
    std::string take_one_of(const std::vector<std::string>& choices);
    [[noreturn]] void unknown() const;
    bool is_wide() const { return is_wide_type(type); }
    bool is_float() const { return type == "f32" || type == "f64"; }
    static bool is_wide_type(const std::string& type);
};

// The operands between commas, each as a list of words.
using Operands = std::vector<std::vector<std::string>>;

using Decode = void (*)(Instruction& i, Opcode& opcode, const Operands& operands, Names& names);
const std::map<std::string, Decode>& decoders();

void add_arithmetic(std::map<std::string, Decode>& decoders);
void add_comparisons(std::map<std::string, Decode>& decoders);
void add_conversions(std::map<std::string, Decode>& decoders);
void add_accesses(std::map<std::string, Decode>& decoders);
void add_control(std::map<std::string, Decode>& decoders);
void add_warp_operations(std::map<std::string, Decode>& decoders);

// The implementation of a sum into which a product was fused: '+' a b + c, 'p' a b - c, 'm' c - a b.
Run fused(char how, bool is_double);
void do_nothing(Warp&, const Instruction&, uint32_t);

const std::string& only_word(const Operands& operands, size_t n);

// The function of a table for the opcode's type; a missing type is an error.
template <class Table>
Run by_type(const Table& table, const Opcode& opcode) {
    const auto found = table.find(opcode.type);
    if (found == table.end()) opcode.unknown();
    return found->second;
}

}  // namespace ptx
