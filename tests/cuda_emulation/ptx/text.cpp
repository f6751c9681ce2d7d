#include "text.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>

namespace ptx {
namespace {

bool is_space(char c) {
    return std::isspace(static_cast<unsigned char>(c)) != 0;
}
bool is_mark(char c) {
    return c != '\0' && std::strchr("{}[](),;+|!:@", c) != nullptr;
}

// The words of a text, one after another, with their lines.
class Words {
  public:
    Words(const std::string& text, size_t at, size_t end, int line) : text_(text), at_(at), end_(end), line_(line) {}

    // The next word; empty at the end of the text.
    std::string_view next() {
        skip_blank();
        if (at_ >= end_) return {};
        const size_t begin = at_++;
        if (is_mark(text_[begin])) return view(begin);
        if (text_[begin] == '"') {
            while (at_ < end_ && text_[at_] != '"') ++at_;
            ++at_;
            return view(begin);
        }
        while (at_ < end_ && !is_space(text_[at_]) && !is_mark(text_[at_])) ++at_;
        return view(begin);
    }
    // Moves past the closing brace of a body whose opening brace was read.
    void skip_body() {
        for (int depth = 1; depth > 0 && at_ < end_; ++at_) {
            if (is_comment()) skip_comment();
            const char c = at_ < end_ ? text_[at_] : '\0';
            if (c == '\n') ++line_;
            depth += (c == '{') - (c == '}');
        }
    }
    size_t at() const { return at_; }
    int line() const { return line_; }

  private:
    std::string_view view(size_t begin) const { return std::string_view(text_).substr(begin, at_ - begin); }
    bool is_comment() const { return at_ + 1 < end_ && text_[at_] == '/' && text_[at_ + 1] == '/'; }
    // Moves to the end of a comment's line.
    void skip_comment() {
        while (at_ < end_ && text_[at_] != '\n') ++at_;
    }
    void skip_blank() {
        while (at_ < end_) {
            if (is_comment()) {
                skip_comment();
            } else if (is_space(text_[at_])) {
                if (text_[at_++] == '\n') ++line_;
            } else {
                return;
            }
        }
    }

    const std::string& text_;
    size_t at_, end_;
    int line_;
};

}  // namespace

int bytes_of_type(const std::string& type) {
    const size_t digits = type.find_first_of("0123456789");
    const int bits = digits == std::string::npos ? 0 : std::atoi(type.c_str() + digits);
    if (bits < 8) throw Error("a type of no bytes: " + type);
    return bits / 8;
}

Parameter declared(const std::vector<std::string>& words, size_t& at) {
    Parameter one;
    int alignment = 0;
    for (; at < words.size(); ++at) {
        if (words[at] == ".align") {
            alignment = std::stoi(words.at(++at));
        } else if (words[at] != ".param" && words[at] != ".local" && words[at] != ".ptr" && words[at] != ".global") {
            break;
        }
    }
    const int element = bytes_of_type(words.at(at++));
    one.name = words.at(at++);
    one.bytes = element;
    one.alignment = alignment ? alignment : element;
    if (at < words.size() && words[at] == "[") {
        one.bytes = element * std::stoi(words.at(at + 1));
        at += 3;
    }
    return one;
}

ModuleText::ModuleText(std::string name, std::string text) : name_(std::move(name)), text_(std::move(text)) {
    Words words(text_, 0, text_.size(), 1);
    std::vector<std::string> head;
    for (std::string_view word = words.next(); !word.empty(); word = words.next()) {
        if (word == "{") {
            const size_t begin = words.at();
            const int line = words.line();
            words.skip_body();
            add(head, begin, words.at() - 1, line);
            head.clear();
        } else if (word == ";") {
            head.clear();  // a declaration, or a directive, without a body
        } else {
            head.emplace_back(word);
        }
    }
}

void ModuleText::add(const std::vector<std::string>& head, size_t begin, size_t end, int line) {
    const auto is_entry = std::find(head.begin(), head.end(), ".entry");
    const auto start = is_entry != head.end() ? is_entry : std::find(head.begin(), head.end(), ".func");
    if (start == head.end()) throw Error(name_ + ":" + std::to_string(line) + ": a body of no function");
    FunctionText f;
    f.is_kernel = is_entry != head.end();
    f.begin = begin, f.end = end, f.line = line;
    size_t at = size_t(start - head.begin()) + 1;
    const auto list = [&](std::vector<Parameter>& into) {
        if (at >= head.size() || head[at] != "(") return;
        for (++at; head.at(at) != ")";) {
            if (head[at] == ",") {
                ++at;
            } else {
                into.push_back(declared(head, at));
            }
        }
        ++at;
    };
    list(f.results);
    f.name = head.at(at++);
    list(f.parameters);
    functions_[f.name] = f;
}

std::vector<Statement> ModuleText::statements(const FunctionText& function) const {
    std::vector<Statement> all;
    Words words(text_, function.begin, function.end, function.line);
    Statement one;
    for (std::string_view word = words.next(); !word.empty(); word = words.next()) {
        if (one.words.empty()) one.line = words.line();
        const bool is_label = word == ":" && one.words.size() == 1;
        if (word != ";" && !is_label) {
            const bool is_block = (word == "{" || word == "}") && one.words.empty();
            if (!is_block) one.words.emplace_back(word);
            continue;
        }
        one.is_label = is_label;
        if (!one.words.empty()) all.push_back(std::move(one));
        one = {};
    }
    if (!one.words.empty()) throw Error(name_ + ":" + std::to_string(one.line) + ": a statement without an end");
    return all;
}

std::string ModuleText::line(int number) const {
    size_t at = 0;
    for (int k = 1; k < number && at != std::string::npos; ++k) {
        at = text_.find('\n', at);
        if (at != std::string::npos) ++at;
    }
    if (at == std::string::npos) return "";
    std::string found = text_.substr(at, text_.find('\n', at) - at);
    std::replace(found.begin(), found.end(), '\t', ' ');
    const size_t first = found.find_first_not_of(' ');
    return first == std::string::npos ? "" : found.substr(first);
}

}  // namespace ptx
