"""Which record of a task counts as its best: one rule for the tuner, `compile --records`, `records best` and reports.

A final comparison declares a winner (:mod:`tilewright.tune.decision`), and only that is trusted: the fastest of many
single measurements was also the luckiest. Where several comparisons were made:

1. Those on this computer go before those on others (of the same machine and as many threads: else it is another task).
2. A winner that took part in a later comparison counts no more, whether it won or lost there.
3. Winners that never met are compared by their gain over the same baseline: times of different hours are not comparable, ratios
   of the same rounds are. The baseline that counts is the latest comparison's: gains over another one mean nothing beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from tilewright.runtime.records.record import Record, host_name


def best_of(records: Iterable[Record], host: str | None = None) -> Record | None:
    """The best of the records of one task: a confirmed winner (``Record.winner``), else the fastest that was measured.

    Unconfirmed final measurements go before trials. ``host`` is the computer to choose for (default: this one).
    """
    known = list(records)
    return confirmed(known, host) or min(
        (r for r in known if r.seconds is not None), key=lambda r: (r.role != "final", r.seconds), default=None
    )


def ranking(records: Iterable[Record], host: str | None = None) -> Iterator[Record]:
    """The best of the records of one task, then the best of those of other schedules, and so on."""
    left = list(records)
    while (best := best_of(left, host)) is not None:
        yield best
        left = [r for r in left if schedule_key(r) != schedule_key(best)]


def confirmed(records: Sequence[Record], host: str | None = None) -> Record | None:
    """The winner that counts among the comparisons of one task; None when none was declared."""
    host = host_name() if host is None else host
    winners = sorted((r for r in records if r.winner), key=lambda r: r.date)
    winners = [w for w in winners if w.host == host] or winners
    standing: list[Record] = []
    for w in winners:
        met = {schedule_key(r) for r in records if r.against == w.against}
        standing = [s for s in standing if schedule_key(s) not in met] + [w]
    if not standing:
        return None
    baselines = {r.uid: schedule_key(r) for r in records}
    latest = standing[-1]
    rivals = [w for w in standing if baselines.get(w.against) == baselines.get(latest.against)]
    return max(reversed(rivals), key=lambda w: inf if w.gain is None else w.gain)


def schedule_key(record: Record) -> tuple[str, str]:
    """Equal for records of one schedule: its steps, and its point, where known; the record itself otherwise."""
    if not record.trace and record.point is None:
        return record.uid, ""
    return record.trace, json.dumps(record.point, sort_keys=True)
