"""`python -m tests.contract.encoder.measure`: reads what to do as JSON, loads a model and works,
then tells what the process held at most, and how much it said that it may come to hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from llmos.abi.blob import BlobRef
from llmos.drivers.resident import read_resident
from tests.unit.drivers.encoder.folders import load, outputs, prepared, work_item
from tests.unit.drivers.tiny import drive


def main() -> None:
    folder, kind, items, params, blobs, spill = json.load(sys.stdin)
    driver = load(Path(folder))
    bound_bytes = driver.memory().bound_bytes
    made = prepared(
        Path(folder),
        kind,
        items,
        params,
        blobs=[BlobRef(*one) for one in blobs],
        spill=spill,
    )
    found = outputs(drive(driver, [work_item("req_1", kind, made)])["req_1"])
    assert [one.error for one in found] == [None] * len(found)
    peak_bytes = read_resident().peak_bytes
    print(json.dumps({"peak": peak_bytes, "bound": bound_bytes}))


if __name__ == "__main__":
    main()
