"""The finder finds each kind of statement, each can be switched off, and a run
tells the killed from the survivors: on a made-up source."""

import collections
import pathlib
import re
import subprocess
import sys
import time
import tracemalloc

import pytest

import find_mutants
import run

# Each line with a mark is a mutant of that kind. `main` fails if it is left
# out, except the swallowed error, which nothing looks at.
SOURCE = r"""
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

enum Status { cudaSuccess, cudaErrorNotReady };
std::map<const char*, int> calls;
#define cudaEventQuery(event) (++calls["query"], cudaErrorNotReady)
void cudaGetLastError() {}
void cudaFree(void*) { ++calls["free"]; }

struct Event {
    void record(int) { ++calls["record"]; }
    void orderBefore(int) { ++calls["orderBefore"]; }
    void wait() { ++calls["wait"]; }
};
struct DeviceGuard {
    explicit DeviceGuard(int device) { calls["device"] = device; }
};
struct CodeOfOthers {
    ~CodeOfOthers() { calls["device"] = before_; }
    int before_ = calls["device"];
};
struct RelaxedCapture {
    RelaxedCapture() { calls["relaxed"] = 1; }
    ~RelaxedCapture() { calls["relaxed"] = 0; }
};
struct Mutex {
    void lock() { ++depth_; }  // lock
    void unlock() { --depth_; }  // lock
    bool heldByThisThread() { return depth_ > 0; }
    int depth_ = 0;
} mutex;
struct EndWorkOnFailure {
    ~EndWorkOnFailure() { calls["drained"] += armed_; }
    void disarm() { armed_ = false; }  // drain guard
    bool armed_ = true;
};
struct Owner {
    Owner(std::shared_ptr<int> given) : given_(std::move(given)) {}  // keep alive
    std::shared_ptr<int> given_;
};
struct AtEnds {
    explicit AtEnds(Mutex* m) : lock_(*m) {}  // lock
    std::unique_lock<Mutex> lock_;
};
std::vector<char*> idle_;
std::vector<std::shared_ptr<int>> lent_;

// event.record(1); in a comment is no statement, nor in a string:
const char* text = "event.record(1);";

void order(Event& event, bool now) {
    event.record(1);  // event record
    if (now)
        event.orderBefore(2);  // stream wait
    else
        calls["else"] = 1;
    for (int i = 0; i < 2; ++i) {
        event.wait();  // host wait
    }
}

bool reached() {
    const Status status = cudaEventQuery(3);  // query
    if (status == cudaErrorNotReady) {
        cudaGetLastError();  // swallowed error
        return false;
    }
    return true;
}

int underLock() {
    std::lock_guard<Mutex> guard(mutex);  // lock
    return mutex.depth_;
}

int underUniqueLock() {
    std::unique_lock<Mutex> guard(mutex);  // lock
    return mutex.heldByThisThread();  // lock
}

int onDevice() {
    DeviceGuard guard(5);  // device guard
    return calls["device"];
}

int keepsDevice() {
    {
        CodeOfOthers current;  // device guard
        calls["device"] = 7;
    }
    return calls["device"];
}

int duringCaptures() {
    const RelaxedCapture relaxed;  // capture guard
    return calls["relaxed"];
}

void drain(bool fail) {
    EndWorkOnFailure onFailure = EndWorkOnFailure();  // drain guard
    if (fail) {
        return;
    }
    onFailure.disarm();  // drain guard
}

int* keep(int* count) {
    lent_.push_back(std::shared_ptr<int>(count, [](int* c) { ++*c; }));  // keep alive
    return lent_.back().get();
}

bool busy_ = false;

void takeTurn() {
    busy_ = true;  // turn
}

void giveBack(void* memory) {
    cudaFree(memory);  // free
}

namespace exact {
void launchNothing() { ++calls["launched"]; }
}

int rankOf(int rank, int k) {
    exact::launchNothing();  // exact step
    return rank < k ? rank : k;  // exact plan
}

float nextUp(float value) {
    return value + 1;
}

float limit(float value) {
    float bound = 0;
    bound += value;  // margin term
    return nextUp(bound);  // margin rounding
}

void require(bool holds) {
    if (!holds) {
        std::exit(1);
    }
}

int main() {
    Event event;
    order(event, true);
    order(event, false);
    require(calls["record"] == 2 && calls["orderBefore"] == 1);
    require(calls["wait"] == 4 && calls["else"] == 1);
    require(!reached());
    require(underLock() == 1 && underUniqueLock() == 1 && mutex.depth_ == 0);
    require(onDevice() == 5);
    require(keepsDevice() == 5);
    drain(false);
    require(calls["drained"] == 0);
    require(duringCaptures() == 1);
    drain(true);
    require(calls["drained"] == 1);
    int count = 0;
    keep(&count);
    require(count == 0);
    auto shared = std::make_shared<int>(1);
    Owner owner(shared);
    require(shared.use_count() == 2);
    {
        AtEnds ends(&mutex);
        require(mutex.depth_ == 1);
    }
    [] {
        idle_.push_back(nullptr);  // recycle
    }();
    require(idle_.size() == 1);
    takeTurn();
    require(busy_);
    require(limit(1) == 2);
    require(rankOf(5, 3) == 3 && calls["launched"] == 1);
    giveBack(nullptr);  // hand back
    require(calls["free"] == 1);
    lent_.clear();
}
"""


def marked():
    """(line, kind) of the marks."""
    return [
        (number, line.split("  // ")[1])
        for number, line in enumerate(SOURCE.split("\n"), 1)
        if "  // " in line
    ]


def test_each_kind_of_statement_is_found_and_nothing_else():
    found = find_mutants.find("Source.cpp", SOURCE)
    assert [(mutant.line, mutant.kind) for mutant in found] == marked()
    kinds = {kind for kind, *_ in (*find_mutants.KINDS, *find_mutants.EXPRESSIONS)}
    assert kinds == {kind for _, kind in marked()}


def test_mutants_of_the_same_text_have_names_of_their_own():
    body = "void f() { event.record(1); event.record(1); }"
    names = [mutant.name() for mutant in find_mutants.find("A.cpp", body)]
    assert names == ["A.cpp: f: event.record(1);", "A.cpp: f: event.record(1); (2)"]


def test_no_mutant_of_the_library_is_without_a_function():
    found = run.all_mutants(run.ROOT / "gpu")
    assert len(found) > 100
    assert [mutant for mutant in found if not mutant.function] == []
    names = collections.Counter(mutant.name() for mutant in found)
    assert names.most_common(1)[0][1] == 1
    assert set(run.equivalents()) <= set(names)


@pytest.fixture(name="program", scope="module")
def compiled(tmp_path_factory):
    """The made-up source with its mutants, compiled."""
    folder = tmp_path_factory.mktemp("mutants")
    (folder / "origin").mkdir()
    (folder / "copy").mkdir()
    (folder / "origin" / "Source.cpp").write_text(SOURCE)
    mutants = run.all_mutants(folder / "origin")
    run.write_switchable(folder / "origin", folder / "copy", mutants)
    subprocess.run(
        ["g++", "-std=c++17", "-o", "program", "copy/Source.cpp"],
        cwd=folder, check=True,
    )
    return folder / "program", mutants


def test_a_run_tells_the_killed_from_the_survivors(program):
    path, mutants = program
    test = run.Test("program", [path], path.parent, notes=path.parent,
                    mutants=len(mutants))
    verdicts = [run.judge(number, [test])[0]
                for number in range(1, len(mutants) + 1)]
    assert test.reached == set(range(1, len(mutants) + 1))
    survivors = [m for m, verdict in zip(mutants, verdicts) if not verdict]
    assert [mutant.kind for mutant in survivors] == ["swallowed error"]


def test_a_test_that_does_not_come_by_a_mutant_is_not_run(program):
    path, _ = program
    test = run.Test("never", ["/nowhere"], path.parent, reached=set())
    assert run.judge(1, [test]) == ["", ""]


#: In a shell: ends well without a mutant.
WHOLE = "[ $FAISS_EXT_MUTANT = 0 ] && exit 0"


def test_a_test_that_a_mutant_makes_endless_has_failed(tmp_path):
    test = run.Test("endless", ["sh", "-c", f"{WHOLE}; sleep 60"], tmp_path,
                    limit=2, reached={1})
    assert "does not end" in run.judge(1, [test])[1]
    assert test.limit == 2


def test_a_test_that_a_busy_machine_makes_slow_has_not_failed(tmp_path):
    test = run.Test("slow", ["sleep", "1"], tmp_path, limit=0.2, reached={1})
    assert run.judge(1, [test]) == ["", ""]
    assert test.limit > 1


def test_a_test_that_ends_by_no_means_tells_nothing(tmp_path):
    test = run.Test("endless", ["sleep", "60"], tmp_path, limit=0.01, reached={1})
    assert run.judge(1, [test]) == ["", ""]


def test_a_test_that_was_killed_is_waited_for(tmp_path):
    # With its output closed, nothing but its end can be waited for.
    command = f"{WHOLE}; echo $$ > it; exec sleep 60 >&- 2>&-"
    test = run.Test("killed", ["sh", "-c", command], tmp_path, limit=2, reached={1})
    assert "does not end" in run.judge(1, [test])[1]
    assert not pathlib.Path("/proc", (tmp_path / "it").read_text().strip()).exists()


@pytest.mark.parametrize("command, failure", [
    ("yes 'said again' | head -c 3000000; exit 1", "said again"),
    ("yes 'said again'", "does not end; said again"),
], ids=["much", "without end"])
def test_what_a_test_prints_costs_neither_time_nor_memory(
    tmp_path, command, failure
):
    test = run.Test("talks", ["sh", "-c", f"{WHOLE}; {command}"], tmp_path,
                    limit=2, reached={1})
    tracemalloc.start()
    begin = time.monotonic()
    assert run.judge(1, [test]) == ["talks", failure]
    assert time.monotonic() - begin < 30
    assert tracemalloc.get_traced_memory()[1] < 20 * run.Output.KEPT
    tracemalloc.stop()


@pytest.mark.parametrize("status, failure", [(0, ""), (1, "said")])
def test_what_a_test_has_started_ends_with_it(tmp_path, status, failure):
    command = f"echo said; sleep 60 & echo $! > child; exit {status}"
    test = run.Test("forks", ["sh", "-c", command], tmp_path, limit=30, reached={1})
    begin = time.monotonic()
    assert run.judge(1, [test])[1] == failure
    assert time.monotonic() - begin < 20
    child = (tmp_path / "child").read_text().strip()
    state = pathlib.Path(f"/proc/{child}/stat")
    for _ in range(100):
        # Gone, or waiting for init to take note of it.
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it is still there")


def test_what_a_test_was_doing_last_is_told():
    said = "[ RUN      ] A.first\n[       OK ] A.first\n[ RUN      ] A.second\n"
    assert run.why(said) == "A.second"
    assert run.why(said + "[  FAILED  ] A.first (1 ms)\n") == "A.first"


def test_a_test_that_fails_without_a_mutant_is_told(tmp_path):
    test = run.Test("broken", ["false"], tmp_path, notes=tmp_path, mutants=3)
    # It would kill every mutant.
    assert run.judge(1, [test]) == ["", ""]
    assert test.broken == "status 1"


def test_verdicts_are_kept_while_the_tree_is_the_same(tmp_path):
    path = pathlib.Path(tmp_path) / "verdicts.json"
    run.Verdicts(path, "a", forget=False).note("one", ["test", "why"])
    assert run.Verdicts(path, "a", forget=False).found == {"one": ["test", "why"]}
    assert run.Verdicts(path, "b", forget=False).found == {}
    assert run.Verdicts(path, "a", forget=True).found == {}


def listed(*options):
    """What run.py says, and its names of mutants."""
    done = subprocess.run(
        [sys.executable, run.HERE / "run.py", "nowhere", "--list", *options],
        capture_output=True, text=True,
    )
    return done, [line.split(": ", 2)[2] for line in done.stdout.splitlines()]


def test_mutants_are_chosen_by_a_regular_expression():
    _, every = listed()
    _, names = listed("--only", "^Pinned|lock_guard.*guard")
    assert names == [n for n in every if re.search("^Pinned|lock_guard.*guard", n)]
    assert 0 < len(names) < len(every)
    done, _ = listed("--only", "(")
    assert done.returncode == 2
    assert "argument --only: '(': missing )" in done.stderr
