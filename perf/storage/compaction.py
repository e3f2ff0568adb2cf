"""Compaction: a topic of keyed records is compacted; what it costs, and whether exactly the last record of every key is left."""
import pathlib, time

from brokers import GIB, MIB, cpu_seconds, rss_bytes, say
from row import results_of, used_bytes, wait_until
from wire import LATEST, Wire

TOPIC = "compacted"
# 1 KiB records with key and framing.
RECORD_BYTES = 1050
SAMPLE_SECONDS = 0.1


def compaction(row):
    options = row.options
    # The log, its compacted copy before the old segments go, and the journals.
    row.need_gib(options.gib * 2.2 + 2)
    broker = row.start_broker()
    keys = max(1, int(options.gib * GIB / RECORD_BYTES * options.live_percent / 100 / options.partitions))
    with Wire(broker.port) as wire:
        # A share of 1 is never exceeded: nothing is compacted before all is written.
        wire.create_topic(TOPIC, options.partitions, {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": 1, "segment.bytes": options.segment_mib * MIB})
    say(f"writing {options.gib:g} GiB with {keys} keys in each of {options.partitions} partitions")
    row.fill(broker, TOPIC, options.gib * 1024, options.partitions, options.partitions, ["--keys", str(keys)])
    found = {"keys": keys, "partitions": options.partitions, "segment_mib": options.segment_mib, "live_percent": options.live_percent}
    found |= compacted(broker, options.partitions)
    for when in ("compacted", "killed and started again"):
        if when != "compacted":
            broker.kill()
            broker.start()
        check = row.generator.run(["compacted", *at_topic(broker), "--keys", str(keys)])
        say(f"{when}: {check['records']} of {check['written_records']} records left, {check['findings']} findings", *check["samples"][:3])
        row.keep("check", {"when": when, **check})
    # A check that can't fail is none.
    control = row.generator.run(["compacted", *at_topic(broker), "--keys", str(keys + 1)])
    say(f"control, another number of keys: {control['findings']} findings")
    row.keep("check", {"when": "control: one key more expected", **control})
    row.keep("compaction", found)


def at_topic(broker):
    return ["--bootstrap", f"127.0.0.1:{broker.port}", "--topic", TOPIC]


def compacted(broker, partitions):
    """Lets the cleaner loose and waits until it has cleaned every partition to its end."""
    ends = {}
    with Wire(broker.port) as wire:
        ends = wire.offsets([(TOPIC, partition) for partition in range(partitions)], LATEST)
        found = {"log_bytes_before": wire.log_bytes(TOPIC), "used_bytes_before": used_bytes(data(broker))}
        found |= {"rss_bytes_before": rss_bytes(broker.pid()), "records": sum(ends.values())}
        # Forgets the peak of the filling.
        pathlib.Path(f"/proc/{broker.pid()}/clear_refs").write_text("5\n")
        samples, began = [], time.monotonic()
        # The active segments are ended, and everything is due.
        wire.alter_topic(TOPIC, {"max.compaction.lag.ms": 1})
        map_bytes = 0

        def is_clean():
            nonlocal map_bytes
            map_now = broker.metric("cleaner_map_bytes")
            map_bytes = max(map_bytes, map_now)
            samples.append((round(time.monotonic() - began, 2), rss_bytes(broker.pid()), map_now, cpu_seconds(broker.pid())))
            cleaned = {int(line["partition"]): int(line["first_dirty"]) for line in broker.logged("compacted")}
            return all(cleaned.get(partition) == end for (_, partition), end in ends.items())

        wait_until("everything is compacted", 1800, is_clean, SAMPLE_SECONDS)
        # The last look before the cleaner was seen at work; a very short one may not have been.
        first = next((index for index, sample in enumerate(samples) if sample[2] > 0), 1)
        begun, ended = samples[first - 1] if first else samples[0], samples[-1]
        found |= {"seconds": ended[0] - begun[0], "waited_seconds": begun[0], "cpu_seconds": ended[3] - begun[3],
                  "rss_bytes_max": rss_bytes(broker.pid(), "VmHWM"), "map_bytes_max": map_bytes, "samples": samples}
        found |= {name: broker.metric(f"cleaner_{name}_total") for name in ("cleanings", "read_bytes", "written_bytes")}
        # Replaced files go when nothing reads them any more.
        used = [0, used_bytes(data(broker))]
        wait_until("replaced segments are gone", 60, lambda: used.append(used_bytes(data(broker))) or used[-1] == used[-2], 1)
        found |= {"log_bytes_after": wire.log_bytes(TOPIC), "used_bytes_after": used[-1]}
    say(f"compacted in {found['seconds']:.1f} s, {found['cpu_seconds']:.2f} cpu-s: {found['log_bytes_before'] / GIB:.2f} -> {found['log_bytes_after'] / GIB:.2f} GiB,"
        f" at most {found['rss_bytes_max'] / MIB:.0f} MiB resident ({found['rss_bytes_before'] / MIB:.0f} before)")
    return found


def data(broker):
    return broker.folder / "data" / "lanes"


def compaction_summary(lines):
    runs, checks = results_of(lines, "compaction"), results_of(lines, "check")
    if not runs:
        return []
    run = runs[-1]
    gib = run["log_bytes_before"] / GIB
    verdict = {check["when"]: check for check in checks}
    out = [f"## compaction: {gib:.2f} GiB of keyed 1 KiB records, {run['live_percent']:g} % of them the last of their key", "",
           f"{run['records']} records over {run['keys']} keys in each of {run['partitions']} partitions, `segment.bytes` {run['segment_mib']} MiB. Nothing is compacted before all is"
           " written (`min.cleanable.dirty.ratio` 1); then `max.compaction.lag.ms` 1 ends the active segments and makes everything due. Time from the cleaner's"
           f" beginning, {run['waited_seconds']:.1f} s after that ({SAMPLE_SECONDS} s between looks), to its end; CPU of the whole broker meanwhile, otherwise idle.", "",
           "| | |", "|---|---|",
           f"| time | {run['seconds']:.1f} s, {gib * 1024 / max(run['seconds'], 0.1):.0f} MiB/s |",
           f"| CPU | {run['cpu_seconds']:.2f} cpu-s, {run['cpu_seconds'] / gib:.3f} a GiB before |",
           f"| log, by DescribeLogDirs | {gib:.3f} GiB before, {run['log_bytes_after'] / GIB:.3f} after |",
           f"| disk space of the lanes with their journals | {run['used_bytes_before'] / GIB:.2f} GiB before, {run['used_bytes_after'] / GIB:.2f} after |",
           f"| cleaner, by its metrics | {run['cleanings']:.0f} compactions, {run['read_bytes'] / GIB:.2f} GiB replaced by {run['written_bytes'] / GIB:.2f} GiB |",
           f"| resident | {run['rss_bytes_before'] / MIB:.0f} MiB before, at most {run['rss_bytes_max'] / MIB:.0f} MiB (the kernel's peak), of which keys {run['map_bytes_max'] / MIB:.1f} MiB |"]
    for when, check in verdict.items():
        out.append(f"| check, {when} | {check['records']} of {check['written_records']} records left, {check['findings']} findings |")
    expected = [verdict[when]["valid"] for when in verdict if not when.startswith("control")]
    controlled = all(not check["valid"] for when, check in verdict.items() if when.startswith("control"))
    passed = "passed" if all(expected) and controlled else "**FAILED**"
    return [*out, "", f"The check {passed}: exactly the last record of every key, at the offset where it was written, with its content; the control has to have findings.", ""]
