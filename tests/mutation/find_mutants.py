"""Finds, in C++ sources, the statements that order and keep alive.

A small parser, not a list of lines: it splits function bodies into statements
and takes those that record, wait, lock, hand back or free. Each becomes a
mutant, a copy of the file without that statement.
"""

from __future__ import annotations

import dataclasses
import re

# What a statement must contain to be taken, and the name of its kind.
KINDS = (
    ("event record", r"\.record\s*\(|->record\s*\(|cudaEventRecord"),
    ("stream wait", r"orderBefore\s*\(|cudaStreamWaitEvent"),
    ("host wait", r"(?<!\w)wait\w*\s*\(|[.>]wait\w*\s*\(|cuda\w*Synchronize|>makeStreamWait\s*\("),
    ("lock", r"std::(lock_guard|unique_lock|scoped_lock)\b"),
    ("device guard", r"\bDeviceGuard\s+\w+\s*\("),
    ("drain guard", r"\bEndWorkOnFailure\s+\w+\s*\(|\bdisarm\s*\(|\babandon\s*\("),
    ("drain guard", r"\bfinish\s*\(|\babandoned_\s*=|\barmed_\s*="),
    ("hand back", r"\breleaseAfter\s*\(|\brelease\s*\((?!\))|data_\.release\s*\("),
    ("keep alive", r"\bnew\s+std::shared_ptr|->data\s*=\s*nullptr"),
    ("keep alive", r"\b(lent_|kept_|keep_|inUse_)\b.*push_back"),
    (
        "recycle",
        r"\b(idle_|pending_|events_)\b.*(push_back|push_front|pop_back|pop_front)"
        r"|second\.pop_back|\bsettle\s*\(|\bputBack\s*\(|\btrim\s*\("
        r"|\bnotify_(one|all)\s*\(|pinnedBytes_\s*[-+]=|beingLookedAt_"
        r"|\b(uploads_|downloads_)\.reset\s*\(|\bsteps_\.(clear|reserve)"
        r"|\breclaim\w*\s*\(|\bunpin\w*\s*\(",
    ),
    ("free", r"cuda(FreeHost|Free|EventDestroy|StreamDestroy)\b"),
    ("free", r"\bpipeline_\.reset\s*\(|memory\.reset\s*\(|deallocMemory"),
    ("swallowed error", r"cudaGetLastError\s*\("),
    ("device guard", r"cudaSetDevice\s*\("),
)

# Parts of expressions that are replaced, and by what.
EXPRESSIONS = (
    ("query", r"\bcuda(?:Event|Stream)Query\s*\((?:[^()]|\([^()]*\))*\)", "cudaSuccess"),
    ("query", r"\b[\w.>-]+\breached\(\)", "true"),
    ("recycle", r"(?<![\w:])(?:reclaimReached|reclaimOldest|unpinOneIdle|waitForOtherThreads)\(\)(?=\s*(?:\)|\|\|))", "false"),
)


@dataclasses.dataclass
class Mutant:
    """One change of one file."""

    path: str
    line: int
    kind: str
    function: str
    #: What is replaced, with single spaces.
    text: str
    begin: int
    end: int
    replacement: str
    #: More replacements in the same file: (begin, end, text).
    also: tuple = ()

    def name(self):
        """What a reader sees, and what the list of equivalents is matched by."""
        return f"{self.path}: {self.function}: {self.text}"

    def apply(self, source):
        """The file with this change."""
        changes = [(self.begin, self.end, self.replacement), *self.also]
        for begin, end, text in sorted(changes, reverse=True):
            source = source[:begin] + text + source[end:]
        return source


def blank(source):
    """The source with comments, strings and preprocessor lines as spaces."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\''
        r"|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*",
        re.DOTALL | re.MULTILINE,
    )
    return pattern.sub(
        lambda match: re.sub(r"[^\n]", " ", match.group()), source
    )


def is_code(head):
    """Whether a brace after `head` (the text since the last ; { or }) opens a
    body of statements: True, of declarations: False, or a list of values:
    None."""
    head = head.strip()
    if re.search(r"\b(class|struct|namespace|enum|union)\b", head) and not (
        head.endswith(")")
    ):
        return False
    if head == "" or re.search(
        r"(\)|\]|\bconst|\bnoexcept|\boverride|\belse|\bdo|\btry)$", head
    ):
        return True
    # The body of a constructor whose last member is set by braces is not met
    # in these sources: those are set by parentheses.
    return None


def statements(code):
    """(begin, end, function) of each statement with its semicolon."""
    # Of each open brace: its kind, where the present statement began, the
    # depth of parentheses in it, the function it lies in.
    stack = [[False, 0, 0, ""]]
    for i, char in enumerate(code):
        top = stack[-1]
        if char in "([":
            top[2] += 1
        elif char in ")]":
            top[2] -= 1
        elif char == "{":
            kind = is_code(code[top[1] : i])
            if kind is None:
                stack.append([None, i + 1, 0, top[3]])
                continue
            function = top[3]
            if kind and not top[0]:
                names = re.findall(r"([~\w:]+)\s*\(", code[top[1] : i])
                function = names[0] if names else ""
            stack.append([kind, i + 1, 0, function])
        elif char == "}":
            closed = stack.pop()
            if closed[0] is None:
                continue
            if stack[-1][2] == 0:
                stack[-1][1] = i + 1
        elif char == ";" and top[2] == 0:
            if top[0]:
                yield top[1], i + 1, top[3]
            top[1] = i + 1


def without_head(code, begin, end):
    """Where the statement itself begins, after `if (...)`, `else`, labels."""
    while True:
        match = re.match(
            r"\s+|else\b|(?:case [^:]+|default|public|private)\s*:(?!:)", code[begin:end]
        )
        if not match or not match.end():
            match = re.match(r"(?:if|for|while)\s*\(", code[begin:end])
            if not match:
                return begin
            depth, at = 1, begin + match.end()
            while depth:
                depth += {"(": 1, ")": -1}.get(code[at], 0)
                at += 1
            begin = at
            continue
        begin += match.end()


def find(path, source):
    """All mutants of one file."""
    code = blank(source)
    for begin, end, function in statements(code):
        begin = without_head(code, begin, end)
        # Not what lies in lambdas of the statement: those are met themselves.
        own = re.sub(r"\{[^{}]*\}", "{}", code[begin:end])
        text = re.sub(r"\s+", " ", source[begin:end]).strip()
        line = source.count("\n", 0, begin) + 1
        for kind, pattern, replacement in EXPRESSIONS:
            for match in re.finditer(pattern, code[begin:end]):
                at = begin + match.start()
                yield Mutant(
                    path, source.count("\n", 0, at) + 1, kind, function,
                    f"{match.group()} -> {replacement}", at,
                    begin + match.end(), replacement,
                )
        if re.match(r"(return|throw|using|delete)\b", own):
            continue
        for kind, pattern in KINDS:
            if re.search(pattern, own, re.DOTALL):
                yield mutant_of(path, source, code, kind, function, text, line,
                                begin, end)
                break
    # Conditions are no statements of their own.
    for kind, pattern, replacement in EXPRESSIONS:
        if replacement != "false":
            continue
        for match in re.finditer(pattern, code):
            line = source.count("\n", 0, match.start()) + 1
            yield Mutant(path, line, kind, "condition",
                         f"{match.group()} -> false", match.start(),
                         match.end(), "false")
    # An owner that is copied: instead of that, a pointer that owns nothing.
    for match in re.finditer(
        r"\b(resources_|lock_)\(std::move\((\w+)\)\)", code
    ):
        line = source.count("\n", 0, match.start()) + 1
        name, given = match.groups()
        yield Mutant(
            path, line, "keep alive", "constructor", match.group(),
            match.start(), match.end(),
            f"{name}(std::shared_ptr<void>(), {given}.get())",
        )


def mutant_of(path, source, code, kind, function, text, line, begin, end):
    """A statement taken out. A buffer that is kept is given back at the end of
    the block instead, where what follows still points into it."""
    kept = re.match(r"(\w+)\.push_back\((.*)\);$", text)
    if kind == "keep alive" and kept:
        follows = re.match(
            r"[^;]*\b" + kept.group(1) + r"\.back\(\)", code[end:]
        )
        if follows:
            last = end + follows.end()
            first = last - len(kept.group(1) + ".back()")
            return Mutant(path, line, kind, function, text, begin, end,
                          f"auto notKept = {kept.group(2)};",
                          ((first, last, "notKept"),))
    return Mutant(path, line, kind, function, text, begin, end, ";")
