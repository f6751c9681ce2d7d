"""Faults to plant in a source of Python or C++: reversed comparisons, differences in place of sums, changed constants
and, in Python, removed ``not``; messages, comments and annotations have no faults (see ``plant_faults.py``).
"""

import ast
import itertools
import re
from dataclasses import dataclass

TURNED = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "=="}
TURNED |= {"is": "is not", "is not": "is", "in": "not in", "not in": "in"}
SYMBOL = {ast.Lt: "<", ast.Gt: ">", ast.LtE: "<=", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
SYMBOL |= {ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}
IN_CPP = re.compile(r"(?P<comparison> (?:[<>]=?|[!=]=) )|(?P<sum> \+ )|(?P<constant>(?<![\w.])\d+(?:\.\d+)?(?![\w.]))")
NO_CODE = re.compile(r'//.*|"(?:\\.|[^"\\\n])*"|#.*|template <|operator *[<>=!+]+|static_assert.*|alignas.*')


@dataclass
class Fault:
    path: str
    line: int
    kind: str
    begin: int  # where the replaced text begins
    end: int
    old: str
    new: str
    names: tuple  # names of the functions and classes around the fault
    verdict: str = ""

    def row(self):
        old, new = (" ".join(text.split()).replace("|", "\\|") for text in (self.old, self.new))
        path = self.path.removeprefix("python/headrace/")
        return f"| `{path}`, line {self.line} | `{old}` to `{new}` | {self.verdict} |"


def faults_in(path, text):
    return (in_python if path.endswith(".py") else in_cpp)(path, text)


def changed(value):
    return str(value + 1) if isinstance(value, int) else str(value * 1.5 or 0.5)


def in_python(path, text):
    tree, lines, away = ast.parse(text), text.splitlines(keepends=True), set()
    starts = [0, *itertools.accumulate(map(len, lines))]
    around = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]

    def place(line, column):  # ast counts columns in bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def ends(node):
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    def code(node):
        return f"({text[slice(*ends(node))]})"

    for node in ast.walk(tree):
        message = isinstance(node, (ast.Raise, ast.JoinedStr))
        part = node if message else getattr(node, "annotation", None) or getattr(node, "returns", None)
        away |= {id(inner) for inner in ast.walk(part)} if part else set()
    for node in ast.walk(tree):
        match node:
            case _ if id(node) in away:
                continue
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                kind, new = "comparison", f"({code(left)} {TURNED[SYMBOL[type(op)]]} {code(right)})"
            case ast.BinOp(left=left, op=ast.Add(), right=right) if not re.search("[\"'\\[]", code(node)):
                kind, new = "sum", f"({code(left)} - {code(right)})"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                kind, new = "not", f"bool{code(operand)}"
            case ast.Constant(value=value) if type(value) in (int, float):
                kind, new = "constant", changed(value)
            case _:
                continue
        names = tuple(n.name.strip("_") for n in around if n.lineno <= node.lineno <= n.end_lineno)
        begin, end = ends(node)
        yield Fault(path, node.lineno, kind, begin, end, text[begin:end], new, names)


def in_cpp(path, text):
    code = NO_CODE.sub(lambda match: " " * len(match[0]), text)
    functions = [
        (match.start(), match[1]) for match in re.finditer(r"^ *[\w:<>&*, ]+ (\w+)\(.*\{$", code, re.MULTILINE)
    ]
    for match in IN_CPP.finditer(code):
        old, kind = match[0].strip(), match.lastgroup
        new = {"comparison": TURNED.get(old), "sum": "-"}.get(kind) or changed(float(old) if "." in old else int(old))
        names = tuple(name for place, name in functions if place < match.start())[-1:]
        begin, end = match.start() + match[0].index(old), match.start() + match[0].index(old) + len(old)
        # The text of a fault includes the operands around an operator, so that a reader can see the change.
        first = begin - len(re.search(r"[\w.)\]]* *$", text[:begin])[0])
        last = end + len(re.match(r" *[\w.(\[]*", text[end:])[0])
        new = text[first:begin] + new + text[end:last]
        yield Fault(path, text.count("\n", 0, begin) + 1, kind, first, last, text[first:last], new, names)
