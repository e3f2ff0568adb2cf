"""Beside: produce latency at a fixed rate, without and with something else that the storage does meanwhile."""
import contextlib, itertools, os, statistics, threading, time

from brokers import GIB, MIB, cpu_seconds, is_crowded, median_spread, rss_bytes, say
from row import at, drop_caches, results_of, wait_until
from wire import Wire, batch, stalled_readers

OLD, KEYED = "old", "keyed"
PARTITIONS = 16
LOAD = ["--partitions", str(PARTITIONS), "--connections", "16", "--in-flight", "5", "--record-bytes", "1024", "--batch-bytes", "16384"]
READER = ["--connections", "1", "--max-bytes", str(MIB), "--partition-max-bytes", str(MIB)]
# Runs of one kind that differ by more decide nothing.
NOISE_MAX = 1.2
# Share of looks that must have found the disturbance at work.
BUSY_MIN = 0.9
# A connection that takes nothing for 30 s is closed: stalled readers have so long to come to rest, and runs beside them end before.
STALLING_SECONDS_MAX, STALLED_SECONDS_MAX = 11, 18
KINDS = ["compaction", "catch-up", "stalled", "arriving"]
BROKER_SETTINGS = ["log.cleaner.backoff.ms=100"]


def beside(row):
    options = row.options
    row.need_gib(options.beside_gib * 4 + 12)
    broker = row.start_broker()
    scene = Scene(row, broker)
    scene.prepare()
    for pair in range(1, options.pairs + 1):
        for beside, disturb in scene.disturbances.items():
            for side, around in (("A", calm), ("B", disturb)):
                scene.measure(pair, beside, side, around)


@contextlib.contextmanager
def calm():
    yield {}


class Scene:
    """A broker with old records, and the load whose latency is measured."""

    def __init__(self, row, broker):
        self.row, self.options, self.broker = row, row.options, broker
        self.topics = itertools.count(1)
        every = dict(zip(KINDS, (self.compaction, self.catch_up, self.stalled, self.arriving)))
        self.disturbances = {"nothing": calm} | {name: every[name] for name in row.options.kinds}

    def prepare(self):
        options, broker = self.options, self.broker
        mib = options.beside_gib * 1024
        say(f"writing {options.beside_gib:g} GiB that are read again, and as much that is compacted")
        self.row.fill(broker, OLD, mib, PARTITIONS, 4)
        # As many keys as records: two thirds stay however often it is compacted.
        keys = max(1, int(mib * 1024 / 4))
        self.row.fill(broker, KEYED, mib, 4, 4, ["--keys", str(keys), "--topic-config", "cleanup.policy=compact", "--topic-config",
                                                   "min.cleanable.dirty.ratio=0", "--topic-config", "max.compaction.lag.ms=1",
                                                   "--topic-config", f"segment.bytes={64 * MIB}"])
        with Wire(broker.port) as wire:
            self.old_starts = {(OLD, partition): 0 for partition in range(PARTITIONS)}
            self.old_bytes = wire.log_bytes(OLD)
        self.until_cleaner_rests()
        self.rate = options.rate or self.saturation() * options.rate_share
        say(f"rate {self.rate:.0f} records/s")
        self.row.keep("scene", {"rate": self.rate, "old_bytes": self.old_bytes, "beside_gib": options.beside_gib})

    def saturation(self):
        result = self.row.generator.run(["produce", *at(self.broker, "saturation"), *LOAD, "--seconds", "5", "--warmup-seconds", "2", "--delete-topic"])
        self.row.keep("saturation", result)
        say(f"saturation: {result['records_per_second']:.0f} records/s")
        return result["records_per_second"]

    def until_cleaner_rests(self):
        """Several looks in a row found nothing to do."""
        rests = [0]

        def has_rested():
            rests[0] = 0 if self.broker.metric("cleaner_map_bytes") else rests[0] + 1
            return rests[0] >= 10
        wait_until("the cleaner rests", 600, has_rested)

    def measure(self, pair, beside, side, around):
        # No run pays for the one before, and none finds what the other left in the page cache.
        drop_caches()
        time.sleep(self.options.settle_seconds)
        options = self.options
        seconds = options.seconds if beside != "stalled" else min(options.seconds, STALLED_SECONDS_MAX - options.warmup_seconds)
        with around() as disturbance:
            result = self.row.generator.run(["produce", *at(self.broker, f"measured-{next(self.topics)}"), *LOAD, "--rate", f"{self.rate:.0f}",
                                             "--seconds", str(seconds), "--warmup-seconds", str(options.warmup_seconds), "--delete-topic"])
        crowded = is_crowded(result, disturbance.get("cpu_seconds", 0))
        self.row.keep("run", {"pair": pair, "beside": beside, "side": side, "crowded": crowded, "disturbance": disturbance, "result": result})
        latency = result["latency"]
        say(f"pair {pair} {beside} {side}: p50 {latency['p50_us'] / 1000:.2f} p99 {latency['p99_us'] / 1000:.2f} p99.9 {latency['p99_9_us'] / 1000:.2f} ms",
            disturbance.get("told", ""), "CROWDED" if crowded else "", *result["invalid_because"])

    @contextlib.contextmanager
    def compaction(self):
        """Some records a second to each partition, so that the whole topic is compacted again and again."""
        found, stop = {"looks": 0, "busy_looks": 0}, threading.Event()
        partitions = [(KEYED, partition) for partition in range(4)]

        def trickle():
            records = batch([os.urandom(100)])
            with Wire(self.broker.port) as wire:
                while not stop.wait(0.2):
                    wire.produce(partitions, records)

        def look():
            while not stop.wait(0.25):
                found["looks"] += 1
                found["busy_looks"] += self.broker.metric("cleaner_map_bytes") > 0

        threads = [threading.Thread(target=trickle)]
        threads[0].start()
        try:
            wait_until("the cleaner begins", 60, lambda: self.broker.metric("cleaner_map_bytes") > 0)
            written, began = self.broker.metric("cleaner_written_bytes_total"), time.monotonic()
            threads.append(threading.Thread(target=look))
            threads[1].start()
            yield found
            found["written_bytes"] = self.broker.metric("cleaner_written_bytes_total") - written
            found["seconds"] = time.monotonic() - began
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        found["is_at_work"] = found["busy_looks"] >= found["looks"] * BUSY_MIN
        found["told"] = (f"(the cleaner at work in {found['busy_looks']} of {found['looks']} looks,"
                         f" {found['written_bytes'] / MIB / found['seconds']:.0f} MiB/s of segments replaced)")
        self.until_cleaner_rests()

    @contextlib.contextmanager
    def catch_up(self):
        """One reader from the first record on, again and again; it yields its core to the measuring load."""
        seconds = self.options.seconds + self.options.warmup_seconds + 1
        reader = self.row.generator.start(["consume", *at(self.broker, OLD), *READER, "--again", "--seconds", str(seconds), "--warmup-seconds", "0"], nice=19)
        found = {}
        try:
            yield found
            read = self.row.generator.outcome(reader)
        finally:
            reader.kill()
            reader.wait()
        found |= {"mib_per_second": read["mib_per_second"], "errors": read["errors"], "cpu_seconds": read["surroundings"]["generator_cpu_seconds"],
                  "is_at_work": read["valid"], "told": f"(read {read['mib_per_second']:.0f} MiB/s)"}

    @contextlib.contextmanager
    def arriving(self):
        """Readers that ask and take nothing; each still gets what its socket and the broker's hold."""
        found, count = {}, self.options.stalled
        others = self.broker.metric("connections_open_count")
        rss_before, began = rss_bytes(self.broker.pid()), time.monotonic()
        with stalled_readers(self.broker.port, count, self.old_starts):
            yield found
            left = self.broker.metric("connections_open_count") - others
            found |= {"connections": count, "connections_after": left, "plans_held": self.broker.metric("plans_held_count"),
                      "seconds": time.monotonic() - began, "rss_bytes_before": rss_before, "rss_bytes": rss_bytes(self.broker.pid()),
                      "is_at_work": left >= count * BUSY_MIN}
            found["told"] = (f"({left:.0f} of {count} still connected after {found['seconds']:.0f} s,"
                             f" {rss_before / MIB:.0f} -> {found['rss_bytes'] / MIB:.0f} MiB resident)")
        wait_until("the readers are gone", 60, lambda: self.broker.metric("connections_open_count") <= others)

    @contextlib.contextmanager
    def stalled(self):
        """The same once they are at rest: the broker has nothing to do for them any more."""
        with self.arriving() as found:
            began = time.monotonic()
            cpu = [0, cpu_seconds(self.broker.pid())]
            while cpu[-1] - cpu[-2] > 0.05 and time.monotonic() - began < STALLING_SECONDS_MAX:
                time.sleep(1)
                cpu.append(cpu_seconds(self.broker.pid()))
            found["stalled_after_seconds"] = time.monotonic() - began
            yield found


# ---- Summary -------------------------------------------------------------------------------


def p99(run):
    return run["result"]["latency"]["p99_us"] / 1000


def pairs_of(runs, beside):
    """(A, B) of every whole pair."""
    by = {(run["pair"], run["side"]): run for run in runs if run["beside"] == beside}
    return [(by[pair, "A"], by[pair, "B"]) for pair in sorted({pair for pair, _ in by}) if (pair, "A") in by and (pair, "B") in by]


def beside_summary(lines):
    runs, scene = results_of(lines, "run"), results_of(lines, "scene")
    equal = [p99(second) / p99(first) for first, second in pairs_of(runs, "nothing")]
    if not equal:
        return []
    saturation = "".join(f", {scene[-1]['rate'] / run['records_per_second'] * 100:.0f} % of the {run['records_per_second']:.0f} reached at saturation"
                         for run in results_of(lines, "saturation"))
    shape = runs[0]["result"]
    out = ["## c3: produce latency beside compaction, a cold reader, stalled readers", "",
           f"16 KiB batches of 1 KiB records, {PARTITIONS} partitions, 16 connections, acks=all on a durable topic, open loop at {scene[-1]['rate']:.0f} records/s"
           f"{saturation}, {shape['seconds']:.0f} s a run. Broker on one core, load on the other. Pairs A (alone), B (beside) follow each other, all kinds in turn; caches are"
           " dropped before each run. p99 in ms from the intended send time, min / **median** / max over the pairs; the ratio B / A is taken pair by pair.",
           "", f"- compaction: a topic of {scene[-1]['beside_gib']:g} GiB of keyed records in 1 MiB batches, 64 MiB segments, is compacted again and again (`log.cleaner.backoff.ms` 100, `min.cleanable.dirty.ratio` 0,"
           " `max.compaction.lag.ms` 1), of which nearly all stay",
           f"- catch-up: one `corelane-load consume`, 1 MiB fetches, over {scene[-1]['old_bytes'] / GIB:.1f} GiB, as fast as it goes",
           "- stalled: connections that asked for 50 MiB of the same and take nothing, once the broker has nothing to do for them any more"
           f" ({stalling(runs)}); runs of at most {STALLED_SECONDS_MAX} s with warm-up, since the broker closes them after 30 s",
           "- arriving, when asked for: the same from the moment they ask on", "",
           "| beside | p99 alone | p99 beside | ratio | p99.9 beside (median) | decided |", "|---|---|---|---|---|---|"]
    noise = max(max(ratio, 1 / ratio) for ratio in equal)
    for beside in dict.fromkeys(run["beside"] for run in runs):
        pairs = pairs_of(runs, beside)
        if not pairs:
            continue
        ratios = [p99(second) / p99(first) for first, second in pairs]
        tail = statistics.median(second["result"]["latency"]["p99_9_us"] / 1000 for _, second in pairs)
        decided = "-" if beside == "nothing" else "yes" if noise <= NOISE_MAX else "**no**"
        out.append(f"| {beside} | {median_spread([p99(first) for first, _ in pairs], 2)} | {median_spread([p99(second) for _, second in pairs], 2)} |"
                   f" {median_spread(ratios, 2)} | {tail:.2f} | {decided} |")
    out += ["", f"Equal runs (beside nothing) differ by up to {(noise - 1) * 100:.0f} %"
            + (": **this row isn't decided here**, the ratios above are an indication at most." if noise > NOISE_MAX else ".")]
    return [*out, "", *remarks(runs), ""]


def stalling(runs):
    """How long the readers took to come to rest, and what they cost."""
    at_rest = [run["disturbance"] for run in runs if "stalled_after_seconds" in run["disturbance"]]
    if not at_rest:
        return "not measured"
    seconds = median_spread([found["stalled_after_seconds"] for found in at_rest], 1)
    resident = median_spread([(found["rss_bytes"] - found["rss_bytes_before"]) / MIB for found in at_rest], 0)
    return f"{at_rest[0]['connections']} of them, at rest after {seconds} s; resident memory grows by {resident} MiB"


def remarks(runs):
    """Runs that are not fit to be quoted, by name."""
    out = []
    for run in runs:
        reasons = [*run["result"]["invalid_because"], *(["crowded"] if run["crowded"] else [])]
        if not run["disturbance"].get("is_at_work", True):
            reasons.append(f"what it is to be beside was not at work all the time {run['disturbance']['told']}")
        out += [f"- pair {run['pair']} {run['beside']} {run['side']}: {reason}" for reason in reasons]
    return out or ["Every run was valid and undisturbed."]
