"""Write the clock vectors: a second, plain-Python implementation of specs/runtime-state.md, "Clock".

    python specs/vectors/clock/generate.py [FOLDER]

It shares no code with the runtime, so the two must agree by the specification alone. A case is
`history.jsonl`, one step a line: `do` is a reading (`wall`, `uptime` and `boot`, in ms), a `document`, a
`root` or a `repair` (ms); `state`, `expiry` and `events` are what it leads to. The state before the first
step is `begin`, a document's time.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
T = 1_790_000_000_000
SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000
WEEK, TRIAL = 7 * DAY, 366 * DAY
State = dict[str, Any]
Step = dict[str, Any]


class Clock:
    """The rules, in the order of the page."""

    def __init__(self, begin: int) -> None:
        self.s: State = {
            "hard": begin,
            "soft": begin,
            "own": 0,
            "budget": WEEK,
            "boot": "",
            "uptime": 0,
            "pending": None,
            "watched": 0,
            "behind": False,
            "stage": "new",
        }

    def step(self, do: Step) -> tuple[int | None, list[str]]:
        s = self.s
        if "document" in do:
            at = do["document"]
            if s["stage"] == "trial" and s["soft"] - at <= TRIAL:
                self.settle()
            s["hard"], s["soft"] = max(s["hard"], at), max(s["soft"], at)
        elif "root" in do:
            s["hard"] = do["root"]
            s["soft"] = max(s["hard"], s["own"])
        elif "repair" in do:
            self.settle()
            s["behind"] = False
            if do["repair"] < s["soft"]:
                s["soft"] = max(do["repair"], s["hard"])
            s["own"] = min(s["own"], s["soft"])
        else:
            return self.read(do["wall"], do["uptime"], do["boot"])
        return None, []

    def settle(self) -> None:
        self.s.update(pending=None, watched=0, stage="settled")

    def read(self, wall: int | None, uptime: int, boot: str) -> tuple[int | None, list[str]]:
        s = self.s
        events = []
        away = boot != s["boot"] or s["behind"]
        elapsed = 0
        if boot != s["boot"]:
            s["boot"], s["uptime"] = boot, uptime
        elif uptime < s["uptime"]:
            events.append("boot-time-back")
        else:
            elapsed, s["uptime"] = uptime - s["uptime"], uptime
        for name in ("hard", "soft", "own"):
            s[name] += elapsed
        s["budget"] = min(WEEK, s["budget"] + elapsed)
        if s["pending"] is not None:
            s["pending"] += elapsed
        if (s["pending"] is not None or s["stage"] == "trial") and not s["behind"]:
            s["watched"] += elapsed
        if wall is None or wall < 0:
            return None, [*events, "unreadable"]
        events += self.judge(wall, away)
        s["own"] = max(s["own"], min(wall, s["soft"]))
        return max(wall, s["soft"]), events

    def judge(self, wall: int, away: bool) -> list[str]:
        s = self.s
        ahead = wall - s["soft"]
        if s["stage"] == "trial" and s["watched"] >= DAY:
            self.settle()
        if ahead < -DAY:
            if s["stage"] == "trial" and wall >= s["hard"] - DAY:
                self.settle()
                s["soft"] = max(wall, s["hard"])
                s["own"] = min(s["own"], s["soft"])
                s["behind"] = False
                return ["jump-undone"]
            again, s["behind"] = s["behind"], True
            return [] if again else ["back"]
        events = ["recovered"] if s["behind"] else []
        s["behind"] = False
        if s["stage"] == "new":
            s["stage"] = "trial" if ahead > TRIAL else "settled"
            s["soft"] += max(0, ahead)
        elif ahead > s["budget"]:
            events += self.watch(wall, away)
        else:
            if s["pending"] is not None:
                events.append("jump-undone" if wall < s["pending"] - DAY else "jump-confirmed")
                self.settle()
            if ahead > 0:
                s["soft"] += ahead
                s["budget"] -= ahead
        return events

    def watch(self, wall: int, away: bool) -> list[str]:
        s = self.s
        late = None if s["pending"] is None else wall - s["pending"]
        if late is None or late < -DAY or late > (WEEK if away else DAY):
            s["pending"], s["watched"] = wall, 0
            return ["jump-pending"]
        if s["watched"] >= DAY:
            s["soft"] = wall
            self.settle()
            return ["jump-confirmed"]
        if away and late > 0:
            s["pending"] = wall
        return []


def at(wall: int | None, uptime: int = 0, boot: str = "a") -> Step:
    return {"wall": wall, "uptime": uptime, "boot": boot}


def walk(seed: int) -> list[Step]:
    """Sixty steps of a machine in the hands of chance."""
    dice = random.Random(seed)
    real, wall, uptime, boot, steps = T, T, 0, 0, []
    for _ in range(60):
        what = dice.choice(
            ["run"] * 4 + ["off", "away", "move", "move", "right", "1970", "document", "other"]
        )
        ran = dice.choice([SECOND, HOUR, 9 * HOUR, 25 * HOUR])
        if what == "off":
            boot, uptime, gone = boot + 1, 0, dice.choice([HOUR, 16 * HOUR, 64 * HOUR, 40 * DAY])
            real, wall = real + gone, wall + gone
        elif what == "away":
            uptime, ran = max(0, uptime - HOUR), 0
        elif what == "move":
            wall += dice.choice(
                [-9 * DAY, -DAY, -HOUR, HOUR, DAY, 6 * DAY, WEEK, 8 * DAY, 29 * DAY, 400 * DAY]
            )
            wall = max(0, wall)
        elif what == "right":
            wall = real
        elif what == "1970":
            wall = 0
        elif what == "document":
            steps.append({"document": real - dice.choice([0, 3 * DAY, 90 * DAY])})
            continue
        elif what == "other":
            steps.append({dice.choice(["root", "repair"]): real - dice.choice([0, 3 * DAY])})
            continue
        real, wall, uptime = real + ran, wall + ran, uptime + ran
        steps.append(at(None if dice.random() < 0.03 else wall, uptime, f"b{boot}"))
    return steps


CASES: dict[str, tuple[str, int, list[Step]]] = {
    "back-edge": (
        "Exactly a day behind is no event, a millisecond more is one; it is told once, and its end.",
        T,
        [at(T), at(T - DAY), at(T - DAY - 1), at(T - DAY - 2), at(T - DAY), at(T)],
    ),
    "budget-edge": (
        "The whole budget at once is taken; a millisecond beyond what is left waits.",
        T,
        [at(T), at(T + WEEK), at(T + WEEK + 1)],
    ),
    "budget-refill": (
        "An hour of run time makes room for an hour.",
        T,
        [at(T), at(T + WEEK), at(T + WEEK + 2 * HOUR, HOUR), at(T + WEEK + 3 * HOUR + 1, HOUR)],
    ),
    "budget-reaches-jump": (
        "A jump that run time has made room for is confirmed, not undone.",
        T,
        [at(T), at(T + WEEK), at(T + WEEK + 2 * HOUR), at(T + WEEK + 4 * HOUR, 2 * HOUR)],
    ),
    "confirm-edge": (
        "A jump is believed after exactly a day of run time.",
        T,
        [
            at(T),
            at(T + 30 * DAY),
            at(T + 31 * DAY - 1, DAY - 1),
            at(T + 31 * DAY, DAY),
        ],
    ),
    "confirm-drift": (
        "A day of drift either way is still there within one boot, a millisecond more is not.",
        T,
        [
            at(T),
            at(T + 30 * DAY),
            at(T + 31 * DAY + HOUR, HOUR),
            at(T + 29 * DAY + 2 * HOUR, 2 * HOUR),
            at(T + 31 * DAY + 3 * HOUR + 1, 3 * HOUR),
            at(T + 30 * DAY + 4 * HOUR, 4 * HOUR),
            at(T + 60 * DAY, 28 * HOUR),
        ],
    ),
    "confirm-over-boots": (
        "A machine that was off comes back later than run time says: up to seven days, never earlier.",
        T,
        [
            at(T),
            at(T + 30 * DAY, 0, "b"),
            at(T + 30 * DAY + 20 * HOUR, 20 * HOUR, "b"),
            at(T + 37 * DAY + 20 * HOUR, 0, "c"),
            at(T + 37 * DAY + 19 * HOUR, 0, "d"),
            at(T + 37 * DAY + 24 * HOUR, 4 * HOUR, "d"),
        ],
    ),
    "confirm-not-over-boots": (
        "More than seven days later after a boot, the watch begins again.",
        T,
        [at(T), at(T + 30 * DAY, 0, "b"), at(T + 37 * DAY + 1, 0, "c")],
    ),
    "pending-waits-at-1970": (
        "A boot at 1970 neither undoes nor ages a pending jump.",
        T,
        [
            at(T),
            at(T + 30 * DAY, 0, "b"),
            at(0, 0, "c"),
            at(30 * HOUR, 30 * HOUR, "c"),
            at(T + 32 * DAY, 30 * HOUR, "c"),
            at(T + 33 * DAY, 54 * HOUR, "c"),
        ],
    ),
    "pending-undone": (
        "The wall comes back before the day is over.",
        T,
        [at(T), at(2_147_483_648_000, HOUR), at(T + 2 * HOUR, 2 * HOUR)],
    ),
    "document-confirms": (
        "An issuer's document of that time ends the waiting.",
        T,
        [at(T), at(T + 60 * DAY), {"document": T + 58 * DAY}, at(T + 60 * DAY + HOUR, HOUR)],
    ),
    "first-wall": (
        "The first wall costs no budget, within a year it is final.",
        T,
        [at(T + 366 * DAY), at(T + 300 * DAY), at(T + 373 * DAY)],
    ),
    "first-wall-dead-battery": (
        "A wall at 1970 is not the first wall.",
        T,
        [at(0), at(HOUR, HOUR), at(T + 90 * DAY, 2 * HOUR)],
    ),
    "first-wall-on-trial": (
        "A first wall more than 366 days ahead is followed back once.",
        T,
        [
            at(T + 366 * DAY + 1),
            at(T + 366 * DAY + 1 - DAY),
            at(0, HOUR),
            at(T + 3 * DAY, 2 * HOUR),
            at(T + 366 * DAY, 3 * HOUR),
        ],
    ),
    "first-wall-trial-below-hard": (
        "Back to just before the newest document: accepted time stops at hard.",
        T,
        [at(T + 3000 * DAY), at(T - DAY - 1), at(T - DAY), at(T + HOUR)],
    ),
    "first-wall-trial-ends": (
        "After a day of run time a first wall is final.",
        T,
        [at(T + 3000 * DAY), at(T + 3001 * DAY, DAY), at(T, DAY)],
    ),
    "first-wall-trial-document": (
        "A document of within 366 days ends the trial, an older one does not.",
        0,
        [
            at(T),
            {"document": T - 366 * DAY - 1},
            {"document": T - 366 * DAY},
            at(T - 30 * DAY),
        ],
    ),
    "new-root": (
        "What documents added goes, what the wall showed stays.",
        T,
        [
            at(T + DAY),
            {"document": T + 900 * DAY},
            at(T + 2 * DAY, HOUR),
            {"root": T},
            at(T + 2 * DAY + HOUR, 2 * HOUR),
            at(T, 2 * HOUR),
            {"root": T},
            at(T, 2 * HOUR),
        ],
    ),
    "repair": (
        "A repair lowers accepted time, never below hard, and raises nothing.",
        T,
        [
            at(T),
            at(T + 400 * DAY),
            at(T + 401 * DAY, DAY),
            {"repair": T + 500 * DAY},
            {"repair": T + 2 * DAY},
            at(T + 2 * DAY, DAY),
            {"repair": T},
            at(T + 2 * DAY, DAY),
        ],
    ),
    "boot-time-back-and-forth": (
        "The same stretch of boot time counts once.",
        T,
        [at(0, 10 * HOUR), at(0, 0), at(0, 10 * HOUR), at(0, 11 * HOUR), at(0, 5 * HOUR, "b")],
    ),
    "unreadable": (
        "No wall, or one before 1970: run time counts, nothing may start.",
        T,
        [at(T), at(None, HOUR), at(-1, 2 * HOUR), at(T + 3 * HOUR, 3 * HOUR)],
    ),
}


def main(out: Path = OUT) -> None:
    walks = {f"walk-{n}": ("Sixty steps of chance.", T, walk(n)) for n in range(1, 7)}
    for name, (description, begin, steps) in (CASES | walks).items():
        clock, lines = Clock(begin), []
        for do in steps:
            expiry, events = clock.step(do)
            line = {"do": do, "events": events, "expiry": expiry, "state": dict(clock.s)}
            lines.append(json.dumps(line, sort_keys=True))
        case = {"description": description, "expect": "ok", "begin": begin}
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "case.json").write_text(json.dumps(case, indent=2) + "\n")
        (folder / "history.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
