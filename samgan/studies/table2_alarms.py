"""How often the alarms of collapsed runs were right: each is compared with the images at the end of its run."""

from collections.abc import Sequence

from samgan.studies.sweep_row import Finished, RowDocument, finished_rows

TRUE_ALARM, FALSE_ALARM, MISSED_ALARM, ENDED = "yes", "false alarm", "missed", "run ended there"
NO_ALARM = "no alarm, no collapse"
ALARM_HEADER = ("run", "alarm at", "length of the run", "MS-SSIM gap at the end", "alarm right?", "reason")
COLLAPSED_SHARE = 0.5
"""A run counts as collapsed above this share of the way from the likeness of real images to equal images."""


def alarm_lines(rows: Sequence[RowDocument]) -> list[tuple[str, ...]]:
    """Runs with an alarm in training, and runs that were collapsed at their end; columns as in `ALARM_HEADER`."""
    lines: list[tuple[str, ...]] = []
    for one in finished_rows(rows):
        trained, alarm, test = one.trained, one.trained.collapse, one.scores.mode_collapse
        word = ENDED if trained.ended_early else _alarm(one)
        if word in ("", NO_ALARM):
            continue
        when = f"{alarm.images_seen / 1000:.0f} kimg, {alarm.wall_seconds / 60:.0f} minutes" if alarm else "none"
        length = f"{trained.kimg:.0f} kimg, {trained.wall_minutes:.0f} minutes"
        gap = f"{test.difference:+.3f}" if test else "-"
        lines.append((one.row.title, when, length, gap, word, alarm.reason if alarm else ""))
    return lines


def alarm_summary(rows: Sequence[RowDocument]) -> str:
    """How often alarms were right, and what share of all minutes is saved if runs end at their alarm.

    A run that was ended at its alarm does not tell whether the alarm was right, so it is not counted.
    """
    judged = [one for one in finished_rows(rows) if not one.trained.ended_early and _alarm(one)]
    words = [_alarm(one) for one in judged]
    right, false, missed = (words.count(word) for word in (TRUE_ALARM, FALSE_ALARM, MISSED_ALARM))
    trained = [one.trained for one in judged]
    saved = sum(run.wall_minutes - run.collapse.wall_seconds / 60 for run in trained if run.collapse)
    minutes = sum(run.wall_minutes for run in trained)
    return (
        "A run counts as collapsed if its images at the end are more than half way from the likeness of real images to "
        f"equal images. Of {len(judged)} runs, {right} had an alarm and were collapsed at their end, {false} had "
        f"a false alarm, and {missed} were collapsed without an alarm. "
        f"Ending runs at their alarm would have saved {saved:.0f} of {minutes:.0f} minutes."
    )


def _alarm(one: Finished) -> str:
    """Whether the alarm of a run, or its absence, was right; empty if the likeness of its images was not scored."""
    test, real = one.scores.mode_collapse, one.scores.ms_ssim_real
    if test is None or real is None:
        return ""
    collapsed = test.difference / (1 - real.mean) > COLLAPSED_SHARE
    if one.trained.collapse:
        return TRUE_ALARM if collapsed else FALSE_ALARM
    return MISSED_ALARM if collapsed else NO_ALARM
