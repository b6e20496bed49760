"""The record of a run: a JSON file, described and checked here.

::

    {
      "schema": 1,
      "made_up": false,               true: written by a test, no measurement
      "smoke": false,                 true: tiny cases, whose times mean nothing
      "environment": {...},           environment.py
      "ceilings": {...},              ceilings.py
      "measurements": [
        {
          "bench": "grid",            which file of cases/
          "case": {"n": 500, ...},    numbers and texts
          "contender": "stock",
          "runs": 31, "median_s": ..., "p99_s": ..., "quantiles_s": [...],
          "checked": "...",           how the results were checked
          "counts": {...},            optional: bytes, copies, waits of one run
          "floors_s": {...},          floors.py; null: rate not measured
          "floor_s": ..., "gap": ..., the greatest; median over it
          "measured_floor_s": ..., "measured_gap": ...   the same, with the
                                      computation as it was measured with all
                                      arrays on the GPU (null: was not)
        },
        {"bench": ..., "case": ..., "contender": ..., "error": "..."},
        {"bench": ..., "case": ..., "skipped": "why"}    the whole case, or,
                                      with a "contender", that one
      ]
    }
"""

from __future__ import annotations

import json
import os
import pathlib

from .timing import QUANTILES

SCHEMA = 1

_TOP = {
    "schema": int, "made_up": bool, "smoke": bool, "environment": dict,
    "ceilings": dict, "measurements": list,
}
_TIMED = {
    "contender": str, "runs": int, "median_s": float, "p99_s": float,
    "quantiles_s": list, "checked": str, "floors_s": dict,
}
_ENVIRONMENT = {
    "date": str, "commit": str, "simulated": bool, "host": dict, "gpu": dict,
    "cuda": dict, "versions": dict,
}


class InvalidRecord(ValueError):
    """A record that is not as described here."""


def validate(record) -> None:
    """Raise InvalidRecord unless `record` is as described above."""
    _fields(record, _TOP, "the record")
    if record["schema"] != SCHEMA:
        raise InvalidRecord(f"schema {record['schema']}; {SCHEMA} is known")
    _fields(record["environment"], _ENVIRONMENT, "environment")
    for name, value in record["ceilings"].items():
        _number(value, f"ceilings.{name}", none=True)
    for place, measurement in enumerate(record["measurements"]):
        _measurement(measurement, f"measurements[{place}]")


def _measurement(entry, where):
    _fields(entry, {"bench": str, "case": dict}, where)
    for key, value in entry["case"].items():
        if not isinstance(value, (str, int, float)):
            raise InvalidRecord(f"{where}.case.{key} is {value!r}")
    if "skipped" in entry:
        _fields(entry, {"skipped": str}, where)
        return
    if "error" in entry:
        _fields(entry, {"contender": str, "error": str}, where)
        return
    _fields(entry, _TIMED, where)
    if entry["runs"] < 1 or len(entry["quantiles_s"]) != len(QUANTILES):
        raise InvalidRecord(f"{where}: no runs, or not {len(QUANTILES)} quantiles")
    for value in (entry["median_s"], entry["p99_s"], *entry["quantiles_s"]):
        _number(value, f"{where}: a time")
    if entry["quantiles_s"] != sorted(entry["quantiles_s"]):
        raise InvalidRecord(f"{where}.quantiles_s is not in order")
    for name, value in entry["floors_s"].items():
        _number(value, f"{where}.floors_s.{name}", none=True)
    for name in ("floor_s", "gap", "measured_floor_s", "measured_gap"):
        _number(entry.get(name), f"{where}.{name}", none=True)
    if not entry["checked"]:
        raise InvalidRecord(f"{where}: timed, and its results were not checked")


def _fields(value, fields, where):
    if not isinstance(value, dict):
        raise InvalidRecord(f"{where} is {value!r}; an object is needed")
    for name, kind in fields.items():
        if not isinstance(value.get(name), kind) or (
            kind is int and isinstance(value[name], bool)
        ):
            raise InvalidRecord(
                f"{where}.{name} is {value.get(name)!r}; needed: {kind.__name__}"
            )


def _number(value, where, none=False):
    if value is None and none:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InvalidRecord(f"{where} is {value!r}; a number from 0 on is needed")


def write(record, path: pathlib.Path) -> None:
    """Validate and write; the file appears whole or not at all."""
    validate(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(_text(record), encoding="utf-8")
    os.replace(part, path)


def _text(record):
    """A measurement a line: records are kept, and long."""
    head = {name: part for name, part in record.items() if name != "measurements"}
    lines = ",\n".join(json.dumps(entry) for entry in record["measurements"])
    return (json.dumps(head, indent=1)[:-2]
            + f',\n "measurements": [\n{lines}\n]\n}}\n')


def read(path: pathlib.Path) -> dict:
    """A record, validated; InvalidRecord names the file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        validate(record)
    except ValueError as error:
        raise InvalidRecord(f"{path.name}: {error}") from None
    return record
