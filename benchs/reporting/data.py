"""Recorded measurements by what was measured."""

from __future__ import annotations

import dataclasses
import math
import pathlib

from measure import record
from measure.floors import BYTES_PER_RESULT, ON_GPU, copy_to_compute
from measure.shapes import WHOLE
from measure.timing import QUANTILES

NOT_YET = "not yet measured"


class Refused(ValueError):
    """A record that must not become a published figure."""


@dataclasses.dataclass
class Measured:
    """One contender in one case, and the record it is from."""

    entry: dict
    source: dict

    @property
    def median(self) -> float | None:
        return self.entry.get("median_s")

    @property
    def ceilings(self) -> dict:
        return self.source["ceilings"]

    @property
    def error(self) -> float:
        """The standard error of the median, in seconds, from the quartiles: that
        of normal samples, sqrt(pi / 2) * sigma / sqrt(runs), whose quartiles are
        1.349 sigma apart."""
        lower, upper = (
            self.entry["quantiles_s"][QUANTILES.index(share)]
            for share in (0.25, 0.75)
        )
        sigma = (upper - lower) / 1.349
        return math.sqrt(math.pi / 2 / self.entry["runs"]) * sigma


class Results:
    """All records of a folder; of a case measured twice, the newer one counts."""

    def __init__(self, folder: pathlib.Path, made_up=False):
        """`made_up`: take records that a test wrote, and only those."""
        #: Where they lie.
        self.folder = folder
        self.records = []
        self._found = {}
        #: What was timed, by record.
        self._timed = []
        for path in sorted(folder.glob("*.json")):
            content = record.read(path)
            _refuse(path, content, made_up)
            self.records.append(content)
        self.records.sort(key=lambda content: content["environment"]["date"])
        versions = {
            content["environment"]["versions"]["faiss"] for content in self.records
        }
        if len(versions) > 1:
            raise Refused(
                f"{folder} has records of Faiss {' and '.join(sorted(versions))}; "
                "give each version a folder of its own"
            )
        #: The version of Faiss that all of them are of, or "".
        self.faiss = "".join(versions)
        for content in self.records:
            self._timed.append({})
            for entry in content["measurements"]:
                key = _key(
                    entry["bench"], entry["case"], entry.get("contender")
                )
                if "median_s" in entry:
                    self._timed[-1][key] = Measured(entry, content)
                old = self._found.get(key)
                # A case that was skipped later is still measured.
                if old is None or old.median is None or "median_s" in entry:
                    self._found[key] = Measured(entry, content)

    def get(self, bench, case, contender) -> Measured | None:
        """What was measured, or why not (then `median` is None), or None.
        `contender` None: why the whole case was not."""
        return self._found.get(_key(bench, case, contender)) or self._found.get(
            _key(bench, case, None)
        )

    def cases(self, bench) -> list[dict]:
        """The cases of a benchmark that are in the records, each once."""
        seen = {}
        for found in self._found.values():
            if found.entry["bench"] == bench and found.entry["case"]:
                seen.setdefault(
                    _key(bench, found.entry["case"], None), found.entry["case"]
                )
        return list(seen.values())

    def contenders(self, bench, case) -> list[str]:
        """Those that were timed in a case."""
        return [
            found.entry["contender"] for found in self._found.values()
            if found.entry["bench"] == bench and found.entry["case"] == case
            and found.median is not None
        ]

    def left_out(self, bench) -> list[tuple[str, dict, str]]:
        """(contender, case, why) of each that was not timed where others were."""
        return [
            (found.entry["contender"], found.entry["case"], found.entry["skipped"])
            for found in self._found.values()
            if found.entry["bench"] == bench and "contender" in found.entry
            and "skipped" in found.entry
        ]

    def errors(self) -> list[str]:
        """What failed, one line each."""
        return [
            f"{found.entry['bench']} {found.entry['case']} "
            f"{found.entry['contender']}: {found.entry['error']}"
            for found in self._found.values() if "error" in found.entry
        ]

    def pair(self, bench, case, *names) -> tuple[Measured, ...] | None:
        """Contenders that were timed in one run, the newest that has them all."""
        keys = [_key(bench, case, name) for name in names]
        for timed in reversed(self._timed):
            if all(key in timed for key in keys):
                return tuple(timed[key] for key in keys)
        return None

    def ratio(self, bench, case, over, under) -> float | None:
        """median(over) / median(under) of one run, or None."""
        found = self.pair(bench, case, over, under)
        return found[0].median / found[1].median if found else None

    def ratio_error(self, bench, case, over, under) -> float | None:
        """How far that may be off: two standard errors, or None."""
        found = self.pair(bench, case, over, under)
        if not found:
            return None
        shares = [measured.error / measured.median for measured in found]
        return 2 * math.hypot(*shares) * found[0].median / found[1].median

    def compute(self, bench, case) -> Measured | None:
        """The fastest search of a case with nothing to copy."""
        found = [
            measured for name in ON_GPU
            if (measured := self.get(bench, case, name)) and measured.median
        ]
        return min(found, key=lambda measured: measured.median, default=None)

    def over_compute(self, bench, case, name, beside) -> float | None:
        """median(name) / the least median with nothing to copy, or None; of the
        run that the ratio of `name` and `beside` is of."""
        keys = {_key(bench, case, each) for each in (name, beside)}
        for timed in reversed(self._timed):
            if keys <= timed.keys():
                computed = [
                    timed[key].median for on_gpu in ON_GPU
                    if (key := _key(bench, case, on_gpu)) in timed
                ]
                found = timed[_key(bench, case, name)]
                return found.median / min(computed) if computed else None
        return None

    def shares(self, bench, case, part, whole) -> float | None:
        """median(part) / median(whole), at most 1, or None."""
        ratio = self.ratio(bench, case, part, whole)
        return None if ratio is None else min(ratio, 1.0)

    def noise(self, bench, case, name="stock") -> float | None:
        """How far two timings of the same thing are apart, as a share."""
        ratio = self.ratio(bench, case, f"{name} again", name)
        return abs(ratio - 1) if ratio else None


def text(found: Measured | None, form) -> str:
    """A table's cell: what `form` makes of a measured one, else why not."""
    if found is None:
        return NOT_YET
    if found.median is not None:
        return form(found)
    return "failed" if "error" in found.entry else "skipped: " + _short(found)


def few_queries(n, nb, d, timed) -> dict:
    """A case of cases/small_batches.py."""
    return {"n": n, "k": WHOLE.small_k, "nb": nb, "d": d, "timed": timed}


def seconds(value: float) -> str:
    """With three digits and a fitting unit."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def nbytes(value: int) -> str:
    """A size as people say it."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= size:
            return f"{value // size} {unit}"
    return f"{value} B"


def rate(found: Measured, moved: int) -> float:
    """Bytes a second."""
    return moved / found.median


def result_bytes(case) -> int:
    return BYTES_PER_RESULT * case["n"] * case["k"]


def ratio_of_bounds(found: Measured, case) -> float | None:
    """R of measure/floors.py, by the ceilings of the record."""
    return copy_to_compute(
        found.ceilings, k=case["k"], nb=case["nb"], d=case["d"]
    )


def _short(found):
    return found.entry["skipped"].partition(":")[0]


def _key(bench, case, contender):
    return bench, tuple(sorted(case.items())), contender


def _refuse(path, content, made_up):
    if content["made_up"] != made_up:
        raise Refused(
            f"{path.name} is {'made up' if content['made_up'] else 'measured'}"
        )
    if content["environment"]["simulated"] or content["smoke"]:
        raise Refused(
            f"{path.name} is of the simulated CUDA runtime or a smoke run; its "
            "times mean nothing"
        )
