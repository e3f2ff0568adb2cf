"""Restart: how long a broker takes from its exec until it serves every partition again, beside data and beside partitions."""
import os, signal, time

from brokers import GIB, MIB, cpu_seconds, median_spread, rss_bytes, say
from row import BIG_BATCHES, at, drop_caches, results_of, used_bytes
from wire import EARLIEST, LATEST, Wire, batch, holds

TOPIC, PARTITIONS = "restart", 16
# Partitions of one topic, and of one request.
TOPIC_PARTITIONS_MAX = 1000
# Load before a kill.
KILLED_UNDER_SECONDS = 2
# A partition that hasn't answered so long after the broker did is taken for lost.
ANSWER_SECONDS_MAX = 120


def chunks(items, size):
    items = sorted(items)
    return [items[start:start + size] for start in range(0, len(items), size)]


class Questions:
    """What every partition is asked after a start. `ends`: their log ends before it, as acknowledged."""

    def __init__(self, starts, ends, per_request, partition_bytes_max):
        self.starts, self.ends, self.per_request, self.partition_bytes_max = starts, ends, per_request, partition_bytes_max
        self.batch = batch([b"after the start"])

    def until_all(self, ask, partitions):
        """Asks in requests of `per_request` partitions, again those without an answer, until all have one."""
        left, answers, deadline = set(partitions), {}, time.monotonic() + ANSWER_SECONDS_MAX
        while left:
            for some in chunks(left, self.per_request):
                answers |= ask(some)
            if not left - answers.keys():
                return answers
            left -= answers.keys()
            if time.monotonic() > deadline:
                raise AssertionError(f"partitions that don't answer: {sorted(left)[:10]}")
            time.sleep(0.002)

    def records_at(self, wire, offsets):
        """Fetches until every partition has given the record at its offset."""
        def ask(some):
            found = wire.fetch({partition: offsets[partition] for partition in some}, self.partition_bytes_max)
            return {partition: True for partition, batches in found.items() if holds(batches, offsets[partition])}
        self.until_all(ask, offsets)

    def put(self, broker):
        """Puts all questions; returns when each was answered for all partitions, in ms since the broker's start."""
        found, partitions = {}, set(self.ends)
        topics = sorted({topic for topic, _ in partitions})
        with Wire(broker.port) as wire:
            self.until_all(lambda _: {partition: True for partition in wire.led_partitions(topics) & partitions}, partitions)
            found["led_ms"] = broker.age_ms()
            ends = self.until_all(lambda some: wire.offsets(some, LATEST), partitions)
            found["offsets_ms"] = broker.age_ms()
            lost = [partition for partition in partitions if ends[partition] < self.ends[partition]]
            if lost:
                raise AssertionError(f"acknowledged records are lost: {lost[:10]}")
            self.records_at(wire, {partition: (self.starts[partition] + end) // 2 for partition, end in self.ends.items()})
            self.records_at(wire, {partition: end - 1 for partition, end in self.ends.items()})
            found["fetched_ms"] = broker.age_ms()
            self.until_all(lambda some: wire.produce(some, self.batch), partitions)
            found["produced_ms"] = broker.age_ms()
        return found


def offsets_of(broker, partitions, which):
    with Wire(broker.port) as wire:
        found = {}
        for some in chunks(partitions, TOPIC_PARTITIONS_MAX):
            found |= wire.offsets(some, which)
    missing = set(partitions) - found.keys()
    assert not missing, f"partitions without offset: {sorted(missing)[:10]}"
    return found


def measured_start(broker, per_request, partition_bytes_max, partitions, end, cache):
    """Ends the broker with `end` and starts it again; what that took."""
    starts, ends = offsets_of(broker, partitions, EARLIEST), offsets_of(broker, partitions, LATEST)
    stop_ms = end()
    if cache == "dropped":
        drop_caches()
    found = {"cache": cache, "stop_ms": stop_ms, "metadata_ms": broker.start()}
    questions = Questions(starts, ends, per_request, partition_bytes_max)
    found |= questions.put(broker)
    found["cpu_seconds"], found["rss_bytes"] = cpu_seconds(broker.pid()), rss_bytes(broker.pid())
    # The same questions again: what they cost when nothing starts.
    began = broker.age_ms()
    again = questions.put(broker)
    found["questions_ms"] = again["produced_ms"] - began
    told = broker.logged("serving")[-1]
    return found | {name: int(told[name]) for name in ("recovery_ms", "journal_read_bytes", "start_ms", "partitions")}


def kill(broker):
    began = time.monotonic()
    broker.kill()
    return (time.monotonic() - began) * 1000


def stop(broker):
    began = time.monotonic()
    broker.process.send_signal(signal.SIGTERM)
    broker.process.wait(300)
    return (time.monotonic() - began) * 1000


def told(found):
    return (f"Metadata {found['metadata_ms']:.0f} ms, all fetched {found['fetched_ms']:.0f} ms, all produced {found['produced_ms']:.0f} ms;"
            f" recovery {found['recovery_ms']} ms, {found['journal_read_bytes'] / MIB:.0f} MiB of journal; {found['rss_bytes'] / MIB:.0f} MiB resident")


# ---- restart-data --------------------------------------------------------------------------


def restart_data(row):
    options = row.options
    sizes = sorted(options.gib)
    # Every kill has its load before it.
    row.need_gib(sizes[-1] * 1.1 + 1 + len(sizes) * options.repeats * 2 * KILLED_UNDER_SECONDS * options.fill_mib * 1.1 / 1024)
    broker = row.start_broker()
    with Wire(broker.port) as wire:
        wire.create_topic(TOPIC, PARTITIONS)
    partitions = [(TOPIC, partition) for partition in range(PARTITIONS)]
    for gib in sizes:
        with Wire(broker.port) as wire:
            while (missing := gib * GIB - wire.log_bytes(TOPIC)) > 0:
                say(f"filling to {gib:g} GiB, {missing / GIB:.2f} are missing")
                row.fill(broker, TOPIC, max(missing / MIB, 8), PARTITIONS, 4)
        for repeat in range(1, options.repeats + 1):
            for cache in ("warm", "dropped"):
                found = start_under_load(row, broker, partitions, cache)
                row.keep("restart-data", {"gib": gib, "repeat": repeat, **found})
                say(f"{found['log_bytes'] / GIB:.2f} GiB, {cache}: {told(found)}")


def start_under_load(row, broker, partitions, cache):
    # Further requests of a load that was cut are of no interest.
    load = row.generator.start(["produce", *at(broker, TOPIC), *BIG_BATCHES, "--rate", str(row.options.fill_mib * 1024), "--seconds", "600"])
    try:
        time.sleep(KILLED_UNDER_SECONDS)
        with Wire(broker.port) as wire:
            log_bytes = wire.log_bytes(TOPIC)
        assert load.poll() is None, "the load ended before the kill"
        # One partition a request, and the first batch of an answer comes whole: 1 MiB each.
        found = measured_start(broker, 1, 1, partitions, lambda: kill(broker), cache)
    finally:
        load.kill()
        load.communicate()
    return {"log_bytes": log_bytes, "used_bytes": used_bytes(broker.folder / "data"), **found}


def restart_data_summary(lines):
    runs = results_of(lines, "restart-data")
    if not runs:
        return []
    out = ["## restart-data: from exec after SIGKILL to every partition served, beside the size of the data", "",
           f"{PARTITIONS} partitions, killed under a load of 1 MiB batches. `dropped`: sync and an empty page cache before the start. Fetched: of each partition"
           " the batch in the middle of its log and the newest acknowledged record, one partition a request; produced: a record to each, acks=all. The questions"
           " alone: the same right after, when nothing starts. Milliseconds, min / **median** / max.", "",
           "| GiB of log | page cache | first Metadata answer | all fetched | all produced | the questions alone | recovery, as the broker logs it | MiB of journal read |",
           "|---|---|---|---|---|---|---|---|"]
    for gib in sorted({run["gib"] for run in runs}):
        for cache in ("warm", "dropped"):
            own = [run for run in runs if (run["gib"], run["cache"]) == (gib, cache)]
            spread = lambda name, unit=1, own=own: median_spread([run[name] / unit for run in own], 0)
            size = median_spread([run["log_bytes"] / GIB for run in own], 2)
            out.append(f"| {size} | {cache} | {spread('metadata_ms')} | {spread('fetched_ms')} | {spread('produced_ms')} | {spread('questions_ms')} |"
                       f" {spread('recovery_ms')} | {spread('journal_read_bytes', MIB)} |")
    return [*out, ""]


# ---- restart-partitions --------------------------------------------------------------------


def restart_partitions(row):
    for count in sorted(row.options.counts):
        broker = row.start_broker()
        partitions, creation = create(broker, count)
        row.keep("created", {"partitions": count, **creation})
        say(f"{count} partitions: created in {creation['create_ms']:.0f} ms, first record in each after {creation['fill_ms']:.0f} ms,"
            f" {creation['rss_bytes'] / MIB:.0f} MiB resident")
        for repeat in range(1, row.options.repeats + 1):
            for way, end in (("SIGTERM", stop), ("SIGKILL", kill)):
                for cache in ("warm", "dropped"):
                    found = measured_start(broker, TOPIC_PARTITIONS_MAX, 1 << 16, partitions, lambda: end(broker), cache)
                    assert found["partitions"] == count, f"the broker serves {found['partitions']} partitions"
                    row.keep("restart-partitions", {"partitions": count, "way": way, "repeat": repeat, **found})
                    say(f"{count} partitions, {way}, {cache}: stop {found['stop_ms']:.0f} ms, {told(found)}")
        row.drop(broker)


def create(broker, count):
    """Topics of at most 1,000 partitions with ten records in each partition."""
    topics = [(f"many-{start // TOPIC_PARTITIONS_MAX}", min(TOPIC_PARTITIONS_MAX, count - start)) for start in range(0, count, TOPIC_PARTITIONS_MAX)]
    partitions = [(topic, partition) for topic, size in topics for partition in range(size)]
    ten = batch([os.urandom(100) for _ in range(10)])
    began = time.monotonic()
    with Wire(broker.port) as wire:
        for topic, size in topics:
            wire.create_topic(topic, size)
        create_ms = (time.monotonic() - began) * 1000
        left = set(partitions)
        while left:
            for some in chunks(left, TOPIC_PARTITIONS_MAX):
                left -= wire.produce(some, ten).keys()
    fill_ms = (time.monotonic() - began) * 1000 - create_ms
    return partitions, {"create_ms": create_ms, "fill_ms": fill_ms, "rss_bytes": rss_bytes(broker.pid()),
                        "used_bytes": used_bytes(broker.folder / "data")}


def restart_partitions_summary(lines):
    runs = results_of(lines, "restart-partitions")
    if not runs:
        return []
    out = ["## restart-partitions: stop and start beside many partitions", "",
           f"Topics of at most {TOPIC_PARTITIONS_MAX} partitions, ten records of 100 bytes in each, and two for each start before. Asked in requests of"
           f" {TOPIC_PARTITIONS_MAX} partitions; fetched: of each partition a record in the middle and the newest acknowledged one. Milliseconds, min / **median** / max.", "",
           "| partitions | ended by | page cache | stop | first Metadata answer | a leader for all | all offsets | all fetched | all produced | the questions alone | resident MiB | cpu-s |",
           "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for count in sorted({run["partitions"] for run in runs}):
        for way in ("SIGTERM", "SIGKILL"):
            for cache in ("warm", "dropped"):
                own = [run for run in runs if (run["partitions"], run["way"], run["cache"]) == (count, way, cache)]
                spread = lambda name, unit=1, digits=0, own=own: median_spread([run[name] / unit for run in own], digits)
                out.append(f"| {count} | {way} | {cache} | {spread('stop_ms')} | {spread('metadata_ms')} | {spread('led_ms')} | {spread('offsets_ms')} |"
                           f" {spread('fetched_ms')} | {spread('produced_ms')} | {spread('questions_ms')} | {spread('rss_bytes', MIB)} | {spread('cpu_seconds', 1, 2)} |")
    out += ["", "| partitions | created in ms | ten records written to each in ms | resident MiB then | MiB on disk then |", "|---|---|---|---|---|"]
    out += [f"| {made['partitions']} | {made['create_ms']:.0f} | {made['fill_ms']:.0f} | {made['rss_bytes'] / MIB:.0f} | {made['used_bytes'] / MIB:.0f} |"
            for made in results_of(lines, "created")]
    return [*out, ""]
