"""Finds, in C++ sources, the statements that order and keep alive, and makes
each of them one that can be switched off.

A small parser, not a list of lines: it splits function bodies into statements
and takes those that record, wait, lock, hand back, recycle or free. Each is a
mutant: a change of the source that, where its number is chosen when the
program starts (`Mutants.h`), leaves that statement out.
"""

from __future__ import annotations

import dataclasses
import re

# What a statement must contain to be taken, and the name of its kind.
KINDS = (
    ("event record", r"\.record\s*\(|->record\s*\(|cudaEventRecord"),
    ("stream wait", r"orderBefore\s*\(|orderStreams\s*\(|cudaStreamWaitEvent"),
    ("stream wait", r"\bmakeStreamWait\s*\(|\bwaitForStream\s*\("),
    ("host wait", r"\bwait\w*\s*\(|\.join\s*\(|cuda\w*Synchronize"),
    ("lock", r"std::(lock_guard|unique_lock|scoped_lock|shared_lock)\b"),
    ("lock", r"\.(un)?lock\s*\(\s*\)|\b(end|begin)(Con|De)struction\s*\("),
    ("lock", r"\bowner_\.store\s*\(|(\+\+|--)depth_;"),
    ("device guard", r"\bDeviceGuard\s+\w+\s*\(|\bCodeOfOthers\s+\w+;|cudaSetDevice\s*\("),
    ("capture guard", r"\bRelaxedCapture\s+\w+;|\brelaxed_\.(emplace|reset)\s*\("),
    ("capture guard", r"\brefuseCapture\s*\("),
    ("drain guard", r"\bEndWorkOnFailure\s+\w+|\bdisarm\s*\(|\babandon\s*\("),
    ("drain guard", r"\babandoned_\s*=|\barmed_\s*=|\bwhenLost_\s*\("),
    ("hand back", r"\brelease(After)?\s*\(|\bgiveBack\s*\(|->deleter\s*\("),
    ("hand back", r"\bdeallocate\s*\("),
    ("keep alive", r"(->|\.)data\s*=\s*nullptr|\bkeepForEver\s*\("),
    ("keep alive", r"\b(lent_|kept|streams)\b.*push_back|\bblocks\.emplace"),
    (
        "recycle",
        r"\b(idle_|pending_)\b.*(push_|pop_)|second\.pop_back|\bsettle\s*\(|\btrim\s*\("
        r"|\bnotify_(one|all)\s*\(|pinnedBytes_\s*[-+]=|unreached\s*="
        r"|\b(uploads_|downloads_)\.reset\s*\(|\bsteps_\.(clear|reserve)"
        r"|\b(registry|jobs_|blocks)\.erase|\bgpus_\.clear|scratch\s*[-+]="
        r"|(\+\+|--)\w+->\w+;|\bjobs_\.push_back",
    ),
    ("turn", r"\b(busy_|hasTurn_|state|alone)\s*=|\bendTurn\s*\("),
    ("turn", r"\bqueue_\.\w+\s*\(|\bothers_\.clear\s*\("),
    ("free", r"cuda(FreeHost|Free|EventDestroy|StreamDestroy)\b"),
    ("free", r"\brunner\.reset\s*\(|\b(block|slot\.(in|out))\.reset\s*\(|\bfreeNow\s*\(|deallocMemory"),
    ("swallowed error", r"cudaGetLastError\s*\("),
    # What an exact search enqueues, and the cuts and the cutting of its plan.
    (
        "exact step",
        r"\bexact::launch\w+\s*\(|\bscored_\.interrupts\.ask\s*\(|\bqueries_\.(rank|capacity)\s*="
        r"|\b(stage|first|back\(\))\.rank\s*=|\bseen\s*\+=\s*rows\.count",
    ),
    # What the exact search adds to its bounds.
    (
        "margin term",
        r"\b(perNorm|perError|perVector|apart|reach|base|spread|bound|step|roundings)"
        r"\s*[-+*/]=",
    ),
)

# An argument, with parentheses in it up to two deep.
ARGUMENT = r"((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)"

# Parts of expressions that are replaced, and by what (with the groups of the
# pattern).
EXPRESSIONS = (
    ("query", r"\bcuda(?:Event|Stream)Query\s*\((?:[^()]|\([^()]*\))*\)", "cudaSuccess"),
    ("query", r"\b[\w.>-]+[.>]reached\(\)", "true"),
    ("query", r"(?<!bool )\bcontextLost\((?:[^()]|\([^()]*\))*\)", "false"),
    ("lock", r"(?<!bool )(?:\b[\w.>-]+[.>])?\bheldByThisThread\(\)", "false"),
    ("recycle", r"(?<==\s)\btake(?:Any)?Idle\([^()]*(?:\.first)?\)(?=\))", "nullptr"),
    # Of the exact search: copies of more vectors than there is room for, or that
    # nobody needs; guesses that nobody makes good.
    ("exact plan", r"\bcopiedVectors\(\) == asked_\.vectors", "true"),
    ("exact plan", r"\bpass == FilterPass::Again \? queries_\.againCount : nullptr", "nullptr"),
    ("exact plan", r"\bfused_ \? (cutRank\([\w.]+\)) : asked_\.k", r"\1"),
    ("exact plan", r"\bstd::max\((search\.most\.survivors), queries\.k\)", r"\1"),
    ("exact plan", r"\brank < k(?= \?)", "true"),
    ("exact plan", r"(?<=\+ )4\.75 \* std::sqrt\(mean\)", "0.0"),
    ("exact plan", r"\bdivideUp\(total, step\) > chunkVectors\(\)", "false"),
    ("exact plan", r"\bpassing > few\b", "true"),
    # To nearest instead.
    ("margin rounding", r"(?<!float )\b(?:next(?:Up|Down)|float(?:Above|Below))\(" + ARGUMENT + r"\)",
     r"static_cast<float>(\1)"),
    ("margin rounding", r"(?<!float )\bmultiplyAddAbove\(" + ARGUMENT + r"\)",
     r"multiplyAdd(\1)"),
)

# The mutant's number in what is inserted.
N = "@N@"
REMOVED = f"::faiss_ext_mutants::removed({N})"


@dataclasses.dataclass
class Mutant:
    """One change of one file, made by insertions alone."""

    path: str
    line: int
    kind: str
    function: str
    #: What is left out, with single spaces.
    text: str
    #: (begin, end, text before begin, text after end), each range within or
    #: outside of any other one.
    around: list
    #: The place among those of the same text in the same function.
    occurrence: int = 1

    def name(self):
        """What a reader sees, and what the list of equivalents is matched by."""
        again = f" ({self.occurrence})" if self.occurrence > 1 else ""
        file = self.path.rpartition("/")[2]
        return f"{file}: {self.function}: {self.text}{again}"


def switchable(source, mutants, numbers):
    """The source with all of its mutants, each under its number."""
    inserted = []
    for mutant, number in zip(mutants, numbers):
        for begin, end, before, after in mutant.around:
            # At one place: what ends, the inner first; then what begins, the
            # outer first.
            inserted.append((begin, 1, begin - end, before.replace(N, str(number))))
            inserted.append((end, 0, end - begin, after.replace(N, str(number))))
    for at, _, _, text in sorted(inserted, key=lambda one: one[:3], reverse=True):
        source = source[:at] + text + source[at:]
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
    """(begin, end, function) of each statement with its semicolon, and of an
    empty one where a body begins."""
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
            if kind and top[0] is False:
                names = re.findall(
                    r"((?:\w+::)?operator\W+?|[~\w:]+)\s*\(", code[top[1] : i]
                )
                function = names[0] if names else ""
            stack.append([kind, i + 1, 0, function])
            if kind:
                yield i + 1, i + 1, function
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
            r"\s+|else\b|(?:case [^;]+?|default|public|private)\s*:(?!:)", code[begin:end]
        )
        if not match or not match.end():
            match = re.match(r"(?:if|for|while)\s*\(", code[begin:end])
            if not match:
                return begin
            begin = closing(code, begin + match.end())
            continue
        begin += match.end()


def closing(code, begin):
    """The place behind the parenthesis that closes the one before `begin`."""
    depth, at = 1, begin
    while depth:
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        at += 1
    return at


def without_bodies(text):
    """The text of a statement without what lies in braces: the statements of a
    lambda are met themselves."""
    while True:
        shorter = re.sub(r"\{[^{}]*\}", "", text)
        if shorter == text:
            return text
        text = shorter


def find(path, source):
    """All mutants of one file, each once."""
    code = blank(source)
    functions = {}
    found = {}

    def note(kind, function, text, begin, around):
        text = re.sub(r"\s+", " ", text).strip()
        line = source.count("\n", 0, begin) + 1
        key = tuple(one[:2] for one in around)
        found.setdefault(key, Mutant(path, line, kind, function, text, around))

    for begin, end, function in statements(code):
        begin = without_head(code, begin, end)
        functions[begin] = function
        own = without_bodies(code[begin:end])
        if re.match(r"(return|throw|using|delete)\b", own):
            continue
        for kind, pattern in KINDS:
            if re.search(pattern, own, re.DOTALL):
                around = of_statement(code, source, begin, end)
                if around:
                    note(kind, function, source[begin:end], begin, around)
                break
    for kind, pattern, replacement in EXPRESSIONS:
        for match in re.finditer(pattern, code):
            function = functions.get(
                max((b for b in functions if b <= match.start()), default=None), ""
            )
            other = match.expand(replacement)
            note(kind, function, f"{match.group()} -> {other}", match.start(),
                 [(*match.span(), f"({REMOVED} ? {other} : ", ")")])
    # An owner that is copied: instead of that, a pointer that owns nothing.
    for match in re.finditer(r"\b\w+_\((std::move\((\w+)\))\)", code):
        if re.search(r"shared_ptr<[^;{}]*>\s+" + match.group(2) + r"\b", code):
            note("keep alive", "constructor", match.group(), match.start(),
                 [(*match.span(1), f"::faiss_ext_mutants::notHeld({N}, ", ")")])
    # A member that is a lock.
    for member in re.findall(r"std::unique_lock<[^;]*>\s+(\w+);", code):
        for match in re.finditer(r"\b" + member + r"\((\*[^()]+)\)", code):
            note("lock", "constructor", match.group(), match.start(),
                 [(*match.span(1), f"::faiss_ext_mutants::lockUnless({N}, ", ")")])
    mutants = sorted(found.values(), key=lambda mutant: mutant.line)
    for i, mutant in enumerate(mutants):
        mutant.occurrence += sum(
            (other.function, other.text) == (mutant.function, mutant.text)
            for other in mutants[:i]
        )
    return mutants


def of_statement(code, source, begin, end):
    """How a statement is left out; None for a declaration that others need."""
    text = code[begin:end]
    guard = re.match(
        r"((?:std::(?:lock_guard|unique_lock|scoped_lock|shared_lock)<[^;]*?>)|DeviceGuard)"
        r"\s+\w+\(", text
    )
    if guard:
        kind_end, arguments = begin + guard.end(1), begin + guard.end()
        return [
            (begin, kind_end, "::faiss_ext_mutants::Unless<", ">"),
            (arguments, end - 2, f"{N}, ", ""),
        ]
    guard = re.match(r"(?:const\s+)?(CodeOfOthers|RelaxedCapture)\s+\w+;", text)
    if guard:
        return [
            (begin + guard.start(1), begin + guard.end(1), "::faiss_ext_mutants::Unless<", ">"),
            (end - 1, end - 1, f"({N})", ""),
        ]
    armed = re.match(r"EndWorkOnFailure\s+(\w+)", text)
    if armed:
        return [(begin, end, "", f" if ({REMOVED}) {{ {armed.group(1)}.disarm(); }}")]
    if re.match(r"[\w:<>,*&\s]+[\s*&]\w+\s*(=|\()(?!=)", text) and not re.match(
        r"(new|delete)\b|\w+\s*=", text
    ):
        return None
    kept = re.match(r"(\w+)\.push_back\((.*)\);$", text, re.DOTALL)
    if kept:
        # Given back at the end of the block instead, where what follows still
        # points into it.
        name = kept.group(1)
        follows = re.match(r"[^;]*\b(" + name + r"\.back\(\))", code[end:])
        if follows:
            first, last = end + follows.start(1), end + follows.end(1)
            value = source[begin + kept.start(2) : begin + kept.end(2)]
            other = f"notKept{N}"
            return [
                (begin, end,
                 f"std::optional<std::decay_t<decltype({name}.back())>> {other};"
                 f" if ({REMOVED}) {{ {other}.emplace({value}); }} else {{ ", " }"),
                (first, last, f"({REMOVED} ? *{other} : ", ")"),
            ]
    return [(begin, end, f"{{ if ({REMOVED}) {{}} else {{ ", " } }")]
