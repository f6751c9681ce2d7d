// Assembles a program from a kernel's text: registers, constants and labels get offsets, and products and sums are
// fused.
#include <algorithm>
#include <cctype>
#include <cstring>

#include "decode.hpp"
#include "memory.hpp"

namespace ptx {
namespace {

constexpr int register_bytes = 4 * lanes_of_warp, wide_register_bytes = 8 * lanes_of_warp;
constexpr const char* dynamic_shared = "hr_dynamic_shared";  // name of the array that HR_DYNAMIC_SHARED declares

int aligned(int at, int alignment) {
    return (at + alignment - 1) / alignment * alignment;
}
// Whether a word is a real constant in hexadecimal digits, such as 0f3f800000 or 0d3ff0000000000000.
bool is_real(const std::string& word, char type) {
    return word.size() > 2 && word[0] == '0' && std::tolower(static_cast<unsigned char>(word[1])) == type;
}

class Assembler final : public Names {
  public:
    Assembler(const ModuleText& module, Contraction contraction) : module_(module), contraction_(contraction) {}

    Program of(const std::string& mangled, const std::string& kernel) {
        program_.kernel = kernel;
        program_.module = &module_;
        function_of(mangled);
        while (!pending_.empty()) {
            const int next = pending_.back();
            pending_.pop_back();
            assemble(next);
        }
        program_.constants.resize((constants_.size() + 7) / 8);
        std::memcpy(program_.constants.data(), constants_.data(), constants_.size());
        program_.local_bytes = aligned(program_.local_bytes, 16);
        program_.frame_bytes = aligned(program_.frame_bytes, 16);
        return std::move(program_);
    }

    // ---- names
    bool is_register(const std::string& name) const override { return find(name).registers != nullptr; }
    bool is_wide(const std::string& name) const override { return found(name).registers->wide; }
    int either_size(const std::string& name) override { return place(found(name)); }
    int operand(const std::string& name, bool wide) override {
        if (const Found one = find(name); one.registers) {
            if (one.registers->is_predicate) throw Error("a predicate where a number is expected: " + name);
            if (one.registers->wide != wide) throw Error("a register of another size than its type: " + name);
            return place(one);
        }
        if (is_real(name, 'f')) return constant(std::stoull(name.substr(2), nullptr, 16), false);
        if (is_real(name, 'd')) return constant(std::stoull(name.substr(2), nullptr, 16), true);
        Space space = Space::generic;
        int64_t offset = 0;
        if (variable(name, space, offset)) return constant(uint64_t(offset), wide);
        const bool is_negative = name[0] == '-';
        const std::string digits = name.substr(is_negative, name.size() - is_negative - (name.back() == 'U'));
        if (digits.empty() || !std::isdigit(static_cast<unsigned char>(digits[0])))
            throw Error("an operand of no meaning: " + name);
        const uint64_t size = std::stoull(digits, nullptr, 0);
        return constant(is_negative ? 0 - size : size, wide);
    }
    int predicate(const std::string& name) override {
        if (const Found one = find(name); one.registers) {
            if (!one.registers->is_predicate) throw Error("not a predicate: " + name);
            return one.registers->at + one.number;
        }
        if (name != "0" && name != "1" && name != "-1") throw Error("not a predicate: " + name);
        return name != "0";
    }
    int unused(bool) override {
        const int at = program_.register_bytes;
        program_.register_bytes += wide_register_bytes;
        return at;
    }
    void jump_to(Instruction&, const std::string& label) override { jumps_.emplace_back(program_.code.size(), label); }
    void call(Instruction& i, const std::string& callee, const std::vector<std::string>& results,
              const std::vector<std::string>& given) override {
        Call one;
        for (const std::string& name : results) one.results.push_back(slots_.at(name));
        for (const std::string& name : given) one.given.push_back(slots_.at(name));
        i.target = function_of(callee);
        const Function& f = program_.functions[size_t(i.target)];
        const auto fit = [](const std::vector<Slot>& a, const std::vector<Slot>& b) {
            return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                              [](const Slot& x, const Slot& y) { return x.bytes == y.bytes; });
        };
        if (!fit(one.given, f.parameters) || !fit(one.results, f.results))
            throw Error("a call with other arguments than the function has: " + callee);
        i.call = int(program_.calls.size());
        program_.calls.push_back(one);
    }
    bool variable(const std::string& name, Space& space, int64_t& offset) override {
        if (const auto slot = slots_.find(name); slot != slots_.end()) {
            space = is_parameter_of_kernel_.count(name) ? Space::parameter : Space::argument;
            offset = slot->second.at;
        } else if (const auto local = locals_.find(name); local != locals_.end()) {
            space = Space::local;
            offset = local->second;
        } else if (name.find(dynamic_shared) != std::string::npos) {
            space = Space::shared;
            offset = int64_t(Memory::shared_begin);
        } else {
            return false;
        }
        return true;
    }
    int function() const override { return function_; }

  private:
    struct Registers {
        int at = 0, count = 0;
        bool wide = false, is_predicate = false;
    };
    struct Found {
        const Registers* registers = nullptr;
        int number = 0;
    };
    // A product or a sum that may be fused with another instruction, with the names of its operands.
    struct Term {
        size_t at;
        int block;
        char what;
        bool is_double;
        std::string d, a, b;
    };

    Found find(const std::string& name) const {
        if (name.empty()) return {};
        if (const auto one = registers_.find(name); one != registers_.end()) return {&one->second, 0};
        const size_t digits = name.find_last_not_of("0123456789") + 1;
        if (name[0] != '%' || digits == name.size()) return {};
        const auto many = registers_.find(name.substr(0, digits));
        if (many == registers_.end()) return {};
        const int number = std::stoi(name.substr(digits));
        if (number >= many->second.count) return {};
        return {&many->second, number};
    }
    Found found(const std::string& name) const {
        const Found one = find(name);
        if (!one.registers) throw Error("not a register: " + name);
        return one;
    }
    static int place(const Found& one) {
        return one.registers->at + one.number * (one.registers->wide ? wide_register_bytes : register_bytes);
    }
    int constant(uint64_t value, bool wide) {
        const auto [found, is_new] = placed_.emplace(std::pair(value, wide), int(constants_.size()));
        if (is_new) {
            char bytes[8];
            std::memcpy(bytes, &value, sizeof bytes);
            for (int l = 0; l < lanes_of_warp; ++l) constants_.insert(constants_.end(), bytes, bytes + (wide ? 8 : 4));
        }
        return -1 - found->second;
    }

    Slot slot(const Parameter& parameter) {
        program_.frame_bytes = aligned(program_.frame_bytes, 16);
        const Slot one{program_.frame_bytes, parameter.bytes};
        program_.frame_bytes += parameter.bytes;
        return one;
    }
    int function_of(const std::string& mangled) {
        const auto [found, is_new] = functions_.emplace(mangled, int(program_.functions.size()));
        if (!is_new) return found->second;
        const auto text = module_.functions().find(mangled);
        if (text == module_.functions().end()) throw Error("a function that the module does not have: " + mangled);
        Function f;
        f.name = mangled;
        for (const Parameter& one : text->second.parameters) {
            if (text->second.is_kernel) {
                const int at = aligned(program_.parameter_bytes, one.alignment);
                f.parameters.push_back({at, one.bytes});
                program_.parameter_bytes = at + one.bytes;
            } else {
                f.parameters.push_back(slot(one));
            }
        }
        for (const Parameter& one : text->second.results) f.results.push_back(slot(one));
        program_.functions.push_back(f);
        pending_.push_back(found->second);
        return found->second;
    }

    void assemble(int number) {
        function_ = number;
        registers_.clear(), slots_.clear(), locals_.clear(), is_parameter_of_kernel_.clear();
        labels_.clear(), jumps_.clear(), uses_.clear(), terms_.clear();
        const std::string name = program_.functions[size_t(number)].name;
        const FunctionText& text = module_.functions().at(name);
        const Function f = program_.functions[size_t(number)];
        program_.functions[size_t(number)].begin = int(program_.code.size());
        for (size_t k = 0; k < text.parameters.size(); ++k) {
            slots_[text.parameters[k].name] = f.parameters[k];
            if (text.is_kernel) is_parameter_of_kernel_.insert(text.parameters[k].name);
        }
        for (size_t k = 0; k < text.results.size(); ++k) slots_[text.results[k].name] = f.results[k];
        int last = text.line;
        for (const Statement& one : module_.statements(text)) {
            last = one.line;
            try {
                add(one);
            } catch (const std::exception& error) {
                throw Error(module_.name() + ":" + std::to_string(one.line) + ": " + error.what());
            }
        }
        Instruction end;
        end.flow = Flow::leave;
        end.target = number;
        end.line = last;
        program_.code.push_back(end);
        if (contraction_ == Contraction::as_ptxas) contract();
        for (const auto& [at, label] : jumps_) {
            const auto found = labels_.find(label);
            if (found == labels_.end()) throw Error(module_.name() + ": a label that is not there: " + label);
            program_.code[at].target = found->second;
        }
    }

    void add(const Statement& one) {
        const std::vector<std::string>& words = one.words;
        if (one.is_label) {
            labels_[words[0]] = int(program_.code.size());
            ++block_;
        } else if (words[0] == ".reg") {
            declare_registers(words);
        } else if (words[0] == ".local") {
            size_t at = 0;
            const Parameter variable = declared(words, at);
            program_.local_bytes = aligned(program_.local_bytes, variable.alignment);
            locals_[variable.name] = program_.local_bytes;
            program_.local_bytes += variable.bytes;
        } else if (words[0] == ".param") {
            size_t at = 0;
            const Parameter variable = declared(words, at);
            slots_[variable.name] = slot(variable);
        } else if (words[0] == ".pragma") {
        } else if (words[0][0] == '.') {
            throw Error("a directive that the interpreter does not know: " + words[0]);
        } else {
            add_instruction(one);
        }
    }
    void declare_registers(const std::vector<std::string>& words) {
        const std::string& type = words.at(1);
        for (size_t k = 2; k < words.size(); ++k) {
            if (words[k] == ",") continue;
            const size_t many = words[k].find('<');
            Registers r;
            r.count = many == std::string::npos ? 1 : std::stoi(words[k].substr(many + 1));
            r.is_predicate = type == ".pred";
            r.wide = !r.is_predicate && bytes_of_type(type) == 8;
            if (!r.is_predicate && bytes_of_type(type) > 8) throw Error("registers of more than 8 bytes: " + type);
            int& end = r.is_predicate ? program_.predicates : program_.register_bytes;
            r.at = end;
            end += r.count * (r.is_predicate ? 1 : r.wide ? wide_register_bytes : register_bytes);
            registers_[words[k].substr(0, many)] = r;
        }
    }
    static Operands operands_of(const std::vector<std::string>& words, size_t at) {
        Operands all;
        int depth = 0;
        for (; at < words.size(); ++at) {
            const std::string& word = words[at];
            if (word == "," && depth == 0) {
                all.emplace_back();
                continue;
            }
            depth += (word == "[" || word == "{" || word == "(") - (word == "]" || word == "}" || word == ")");
            if (all.empty()) all.emplace_back();
            all.back().push_back(word);
        }
        return all;
    }
    void add_instruction(const Statement& one) {
        Instruction i;
        i.line = one.line;
        size_t at = 0;
        if (one.words[0] == "@") {
            i.guard_negated = one.words.at(1) == "!";
            at = i.guard_negated ? 3 : 2;
            i.guard = predicate(one.words.at(at - 1));
        }
        Opcode opcode(one.words.at(at));
        const auto decode = decoders().find(opcode.name);
        if (decode == decoders().end()) opcode.unknown();
        const Operands operands = operands_of(one.words, at + 1);
        note_term(i, opcode, operands, one.words, at + 1);
        decode->second(i, opcode, operands, *this);
        if (!opcode.modifiers.empty()) opcode.unknown();
        program_.code.push_back(i);
    }

    // ---- contraction
    void note_term(const Instruction& i, const Opcode& opcode, const Operands& operands,
                   const std::vector<std::string>& words, size_t at) {
        for (; at < words.size(); ++at)
            if (words[at].compare(0, 2, "%f") == 0) ++uses_[words[at]];
        if (opcode.name == "bra" || opcode.name == "call") ++block_;
        const char what = opcode.name == "mul" ? '*' : opcode.name == "add" ? '+' : opcode.name == "sub" ? '-' : ' ';
        if (what == ' ' || !opcode.is_float() || !opcode.modifiers.empty() || i.guard >= 0 || operands.size() != 3)
            return;
        terms_.push_back(
            {program_.code.size(), block_, what, opcode.type == "f64", operands[0][0], operands[1][0], operands[2][0]});
    }
    // Fuses products and sums. PTX allows one rounding for a product and a sum if neither has a rounding modifier. The
    // machine code of ptxas shows that ptxas fuses a product with the only sum that reads the product, if both are in
    // one block of instructions.
    void contract() {
        std::map<std::string, const Term*> products;
        int block = -1;
        for (const Term& one : terms_) {
            if (one.block != block) products.clear();
            block = one.block;
            if (one.what == '*') {
                if (uses_[one.d] == 2) products[one.d] = &one;
                continue;
            }
            const bool is_left = products.count(one.a) != 0;
            const auto found = products.find(is_left ? one.a : one.b);
            if (found == products.end()) continue;
            Instruction& sum = program_.code[one.at];
            Instruction& product = program_.code[found->second->at];
            const int other = is_left ? sum.b[0] : sum.a[0];
            sum.a[0] = product.a[0], sum.b[0] = product.b[0], sum.c[0] = other;
            sum.run = fused(one.what == '+' ? '+' : is_left ? 'p' : 'm', one.is_double);
            product.run = &do_nothing;
            products.erase(found);
        }
    }

    const ModuleText& module_;
    const Contraction contraction_;
    Program program_;
    std::map<std::string, int> functions_;  // functions of the program, by name
    std::vector<int> pending_;
    std::map<std::pair<uint64_t, bool>, int> placed_;
    std::vector<char> constants_;
    // State of the current function.
    int function_ = 0, block_ = 0;
    std::map<std::string, Registers> registers_;
    std::map<std::string, Slot> slots_;
    std::set<std::string> is_parameter_of_kernel_;
    std::map<std::string, int> locals_, labels_;
    std::vector<std::pair<size_t, std::string>> jumps_;
    std::map<std::string, int> uses_;
    std::vector<Term> terms_;
};

}  // namespace

Program assemble(const ModuleText& module, const std::string& mangled, const std::string& kernel,
                 Contraction contraction) {
    return Assembler(module, contraction).of(mangled, kernel);
}

}  // namespace ptx
