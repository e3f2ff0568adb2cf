"""Comparison: runs rows pair by pair and keeps every run as a file; what lies there already isn't measured again."""
import hashlib, json, os, pathlib, shutil, statistics, sys, time

from brokers import MIB, Generator, cpu_seconds, is_crowded, say
from floor import FLOORS
from rows import CONSUME, P1, P4, ROWS, SYSTEMS
from wire import Wire, batch

# Read faster, a cold reader would reach the log's end within its window; the disk of the reference machine gives 2.1 GB/s.
COLD_BYTES_PER_SECOND_MAX = 2.2e9
# Share of what was written that a cold reader may have read without having waited at the end.
COLD_SHARE_MAX = 0.97
# Before the reading that is measured.
HOT_READINGS = 3
READY_SECONDS_MAX = 300
# Kafka makes an index entry with the first batch behind every 4,096 bytes: the third batch of each partition finds its pages there.
READY_RECORD_BYTES, READY_ROUNDS, READY_PARTITIONS = 5000, 3, 16
# A broker that used less than this share of a core for so long is at rest; an idle JVM uses 2 to 4%.
QUIET_SHARE_MAX, QUIET_SECONDS = 0.1, 0.5
# The runs a pair leaves of a system, by kind of row; a pair that lacks one is made again as a whole, since its ratio is of the same minutes.
RUNS_OF_KIND = {"produce": [""], "hot": [""], "cold": [""], "tail": ["-without", "-with", "-reader"], "mixed": ["", "-reader"]}


class Comparison:
    def __init__(self, options):
        self.options, self.out, self.brokers = options, options.out, {}
        (self.out / "runs").mkdir(parents=True, exist_ok=True)
        self.runs, self.topics = [], 0
        self.generator = Generator(options)
        self.binaries = {name: hashlib.sha256((options.binaries / name).read_bytes()).hexdigest()[:16] for name in ("corelane", "corelane-load", *(["corelane-floor"] if options.floor else []))}
        self.saturations = Saturations(options)

    # ---- what is there already ----

    def repeats(self, row):
        """What a kept run must have been made with to stand for a new one."""
        options = self.options
        return {"load": row.load, "share": row.share, "saturation": options.saturation.get(row.share_of), "seconds": options.seconds,
                "warmup_seconds": options.warmup_seconds, "sizes_mib": [options.fill_mib, options.tail_mib, options.cold_mib],
                "setting": self.setting()}

    def setting(self):
        """What every row depends on."""
        return [self.options.corelane_set, self.options.kafka_heap, self.options.rival, self.binaries]

    def kept(self, row, pair):
        """The runs of a pair when all are there and were made as they would be now."""
        runs = []
        for system in row.systems:
            for part in RUNS_OF_KIND[row.kind]:
                try:
                    run = json.loads(self.path(row.name + part, system, pair).read_text())
                except (OSError, ValueError):
                    return None
                if run.get("repeats") != self.repeats(row):
                    return None
                runs.append(run)
        return runs

    def missing(self, rows):
        """Takes over what is kept; returns the pairs still to be made, in the order of making them."""
        missing = []
        for pair in range(1, self.options.pairs + 1):
            for row in rows:
                kept = self.kept(row, pair)
                self.runs += kept or []
                if kept is None:
                    missing.append((row, pair))
        return missing

    def path(self, name, system, pair):
        return self.out / "runs" / f"{name}-{system}-{pair}.json"

    # ---- one run ----

    def topic(self):
        self.topics += 1
        return f"compare-{self.topics}"

    def seconds(self):
        """The measured seconds, fewer where the disk could not hold a topic written at 2 GB/s."""
        free = shutil.disk_usage(self.options.work).free
        return max(1.0, min(self.options.seconds, free * 0.4 / 2e9 - self.options.warmup_seconds))

    def ready_topic(self, broker, load, config):
        """A new topic whose partitions have all taken some records: a broker that has made a thousand may refuse some for
        seconds, and Kafka's first entry in each of two thousand memory-mapped indexes is a page of a file that must be allocated."""
        topic, count = self.topic(), int(load[load.index("--partitions") + 1])
        partitions, records = [(topic, partition) for partition in range(count)], batch([bytes(READY_RECORD_BYTES)])
        deadline = time.monotonic() + READY_SECONDS_MAX
        with Wire(broker.port) as wire:
            wire.create_topic(topic, count, dict(setting.split("=", 1) for setting in config[1::2]))
            if broker.name in FLOORS:
                return topic
            for start in [*range(0, count, READY_PARTITIONS)] * READY_ROUNDS:
                left = set(partitions[start:start + READY_PARTITIONS])
                while left:
                    left -= wire.produce(sorted(left), records).keys()
                    if time.monotonic() > deadline:
                        sys.exit(f"{broker.name}: partitions that take nothing: {sorted(left)[:10]}")
        self.until_quiet(broker)
        return topic

    def until_quiet(self, broker):
        """A broker may have much to do after it has made or removed a topic, which isn't the row's."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            before, began = cpu_seconds(broker.pid()), time.monotonic()
            time.sleep(QUIET_SECONDS)
            share = (cpu_seconds(broker.pid()) - before) / (time.monotonic() - began)
            if share < QUIET_SHARE_MAX:
                return
            if time.monotonic() > deadline:
                return say(f"{broker.name} doesn't come to rest: {share * 100:.0f}% of a core")

    def at(self, broker, topic):
        return ["--bootstrap", f"127.0.0.1:{broker.port}", "--pid", str(broker.pid()), "--topic", topic]

    def window(self, seconds=None, warmup_seconds=None):
        return ["--seconds", f"{self.seconds() if seconds is None else seconds:.2f}",
                "--warmup-seconds", str(self.options.warmup_seconds if warmup_seconds is None else warmup_seconds)]

    def keep(self, row, part, system, pair, result, own_cpu_seconds=0):
        result["crowded"] = is_crowded(result, own_cpu_seconds)
        result |= {"row": row.name + part, "system": system, "pair": pair, "repeats": self.repeats(row)}
        self.path(row.name + part, system, pair).write_text(json.dumps(result, indent=1) + "\n")
        self.runs.append(result)
        latency = result.get("latency") or {}
        say(f"{row.name}{part} pair {pair} {system}: {result['broker']['cpu_seconds_per_million_records']:.4f} cpu-s/M,"
            f" {result['broker']['cpu_seconds_per_gib']:.4f} cpu-s/GiB, {result['broker']['cpu_micros_per_request']:.2f} us/request,"
            f" {result['records_per_second'] / 1000:.0f} k rec/s, p99 {latency.get('p99_us', 0) / 1000:.2f} ms",
            "CROWDED" if result["crowded"] else "", *result["invalid_because"])

    def pair(self, row, pair):
        measure = {"produce": self.produce, "hot": self.consume_hot, "cold": self.consume_cold, "tail": self.tail, "mixed": self.mixed}[row.kind]
        rate = ["--rate", f"{self.rate(row):.0f}"] if row.share else []
        for system in row.systems:
            broker_name, config = SYSTEMS[system]
            measure(row, system, pair, self.brokers[broker_name], config, rate)
            self.settle()

    def rate(self, row):
        """Its share of what Kafka reached: given, found before, of the runs there are, or of one made for it."""
        of, base = ROWS[row.share_of], ROWS[row.share_of].systems[0]

        def probed():
            reached = [run["records_per_second"] for run in self.runs if (run["row"], run["system"]) == (of.name, base)]
            if reached:
                return statistics.median(reached)
            broker_name, config = SYSTEMS[base]
            broker = self.brokers[broker_name]
            topic = self.ready_topic(broker, of.load, config)
            return self.generator.run(["produce", *self.at(broker, topic), *self.window(), *of.load, "--delete-topic"])["records_per_second"]
        return row.share * self.saturations.of(of.name, probed)

    def settle(self):
        """Lets deleted files go and dirty pages be written, so that no run pays for the one before."""
        os.sync()
        time.sleep(self.options.settle_seconds)

    def produce(self, row, system, pair, broker, config, rate):
        arguments = [*self.at(broker, self.ready_topic(broker, row.load, config)), *self.window(), *row.load, *rate]
        self.keep(row, "", system, pair, self.generator.run(["produce", *arguments, "--delete-topic"]))

    def filled_topic(self, broker, config, mib, mib_per_second):
        """A topic with so many MiB of 1 MiB batches; a floor has its own."""
        if broker.name in FLOORS:
            return self.topic()
        topic = self.ready_topic(broker, P1, config)
        filled = self.generator.run(["produce", *self.at(broker, topic), *self.window(mib / mib_per_second, 0), *P1, "--rate", f"{mib_per_second * 1024}"])
        if filled["errors"] or filled["lost_requests"]:
            sys.exit(f"filling {broker.name}: {filled['errors']}, {filled['lost_requests']} requests lost")
        self.settle()
        return topic

    def consume_hot(self, row, system, pair, broker, config, _):
        """One reader over what was just written, from the page cache or the broker's memory, again and again. It was read
        three times before: Kafka fills the page cache as it writes, Corelane at the second reading, and sends from there
        at the third."""
        topic = self.filled_topic(broker, config, self.options.fill_mib, self.options.fill_mib / 4)
        read_bytes = 0
        while broker.name not in FLOORS and read_bytes < HOT_READINGS * self.options.fill_mib * MIB:
            warmed = self.generator.run(["consume", *self.at(broker, topic), *self.window(warmup_seconds=0), *row.load, "--again"])
            read_bytes += warmed["bytes"]
            if not warmed["bytes"]:
                sys.exit(f"{row.name}: {broker.name} sends nothing: {warmed['errors']}")
        self.keep(row, "", system, pair, self.generator.run(["consume", *self.at(broker, topic), *self.window(), *row.load, "--again", "--delete-topic"]))

    def consume_cold(self, row, system, pair, broker, config, _):
        """One reader from the first record on, once, for so long that it can't reach the end."""
        size_bytes = self.options.cold_mib * MIB
        topic = self.filled_topic(broker, config, self.options.cold_mib, self.options.cold_fill_mib)
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
        window = self.window(size_bytes / COLD_BYTES_PER_SECOND_MAX, 0)
        result = self.generator.run(["consume", *self.at(broker, topic), *window, *row.load, "--delete-topic"])
        if result["bytes"] > size_bytes * COLD_SHARE_MAX:
            result["valid"] = False
            result["invalid_because"].append("the reader reached the end of what was written")
        self.keep(row, "", system, pair, result)

    def with_reader(self, row, names, system, pair, broker, config, load):
        """A load that stamps its records, and one reader at the log's end; `names` of the two runs."""
        topic = self.ready_topic(broker, load, config)
        at, window = self.at(broker, topic), self.window()
        reader = self.generator.start(["consume", *at, *window, *CONSUME, "--from", "end", "--latency"])
        produced = self.generator.run(["produce", *at, *window, *load, "--stamp"])
        consumed = self.generator.outcome(reader)
        cpu = lambda result: result["surroundings"]["generator_cpu_seconds"]
        self.keep(row, names[1], system, pair, consumed, cpu(produced))
        self.keep(row, names[0], system, pair, produced, cpu(consumed))
        self.generator.run(["consume", *at, *self.window(0.1, 0), *CONSUME, "--delete-topic"])

    def mixed(self, row, system, pair, broker, config, rate):
        self.with_reader(row, ("", "-reader"), system, pair, broker, config, [*row.load, *rate])

    def tail(self, row, system, pair, broker, config, _):
        """The same produce load without and with one reader at the log's end; the difference is the reader's."""
        load = [*row.load, "--rate", str(self.options.tail_mib * 1024)]
        at = self.at(broker, self.ready_topic(broker, load, config))
        self.keep(row, "-without", system, pair, self.generator.run(["produce", *at, *self.window(), *load, "--stamp", "--delete-topic"]))
        self.settle()
        self.with_reader(row, ("-with", "-reader"), system, pair, broker, config, load)

    # ---- before all runs ----

    def warm_up(self, rows):
        """A JVM's first minutes cost several times what its later ones do. The shapes of all rows, by turns."""
        shapes = [P4, P1]
        shapes += [row.load for row in rows if row.kind in ("produce", "mixed") and row.load not in shapes]
        warmed = {"kafka": self.options.warm_kafka} | dict.fromkeys(["corelane", "corelane-glommio", "rival"], self.options.warm_corelane)
        for name, seconds in ((name, seconds) for name, seconds in warmed.items() if name in self.brokers):
            broker, began = self.brokers[name], time.monotonic()
            window = self.window(min(15.0, max(1.0, seconds / 2 / len(shapes))), 0)
            for turn in range(10_000):
                if time.monotonic() - began > seconds:
                    break
                shape = shapes[turn % len(shapes)]
                result = self.generator.run(["produce", *self.at(broker, self.ready_topic(broker, shape, [])), *window, *shape, "--delete-topic"])
                say(f"warm-up {name}: {result['broker']['cpu_seconds_per_million_records']:.3f} cpu-s/M, {result['records_per_second'] / 1000:.0f} k rec/s")
            topic = self.ready_topic(broker, P1, [])
            self.generator.run(["produce", *self.at(broker, topic), *self.window(2, 0), *P1])
            self.generator.run(["consume", *self.at(broker, topic), *self.window(max(1.0, seconds / 10), 0), *CONSUME, "--again", "--delete-topic"])
            self.settle()


class Saturations:
    """What Kafka reached on a row, records a second: the same for all pairs and after an interruption."""

    def __init__(self, options):
        self.path = options.out / "saturation.json"
        self.found = {**(json.loads(self.path.read_text()) if self.path.exists() else {}), **options.saturation}

    def of(self, name, probed):
        if name not in self.found:
            self.found[name] = probed()
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")
        return self.found[name]
