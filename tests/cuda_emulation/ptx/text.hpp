// The text of a PTX module: its functions, with statements as words.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"

namespace ptx {

struct Parameter {
    std::string name;
    int bytes = 0, alignment = 1;
};

struct Statement {
    int line = 0;
    bool is_label = false;  // for a label, `words` has its name
    std::vector<std::string> words;
};

struct FunctionText {
    std::string name;  // mangled by the compiler
    bool is_kernel = false;
    std::vector<Parameter> results, parameters;
    size_t begin = 0, end = 0;  // range of the function's body
    int line = 0;               // line at which the body begins
};

// The number of bytes of a type such as ".b32".
int bytes_of_type(const std::string& type);
// Reads the declaration of a variable from words[at] on: ".param .align 8 .b8 name[32]". The call moves `at` past
// the declaration.
Parameter declared(const std::vector<std::string>& words, size_t& at);

class ModuleText {
  public:
    ModuleText(std::string name, std::string text);

    const std::string& name() const { return name_; }
    const std::map<std::string, FunctionText>& functions() const { return functions_; }
    std::vector<Statement> statements(const FunctionText& function) const;
    std::string line(int number) const;

  private:
    void add(const std::vector<std::string>& head, size_t begin, size_t end, int line);

    std::string name_, text_;
    std::map<std::string, FunctionText> functions_;
};

}  // namespace ptx
