"""Row: what every row of perf/storage/run works with: its folders, its broker, its results."""
import json, os, pathlib, shutil, sys, time

from brokers import GIB, MIB, Corelane, Generator, environment, text_of

BIG_BATCHES = ["--in-flight", "5", "--record-bytes", "1024", "--batch-bytes", str(MIB)]


class Row:
    def __init__(self, options, broker_settings=()):
        self.options, self.name = options, options.row
        options.corelane_set = [word for setting in broker_settings for word in ("--set", setting)]
        self.work = options.work / self.name
        self.lines = open(options.out / f"{self.name}.jsonl", "w")
        self.generator = Generator(options)
        self.brokers = []
        self.keep("environment", environment(options) | {"broker_settings": list(broker_settings), "disk": disk_of(options.work)})

    def keep(self, kind, result):
        """Writes one measurement down; what was measured before a failure stays."""
        self.lines.write(json.dumps({"kind": kind, **result}) + "\n")
        self.lines.flush()

    def need_gib(self, gib):
        free = shutil.disk_usage(self.work.parent).free / GIB
        if free < gib:
            sys.exit(f"{self.name} needs {gib:.0f} GiB in {self.work.parent}, {free:.0f} are free")

    def start_broker(self):
        """A broker in an empty folder."""
        broker = Corelane(self.options, self.work / f"broker-{len(self.brokers)}")
        self.brokers.append(broker)
        broker.start()
        return broker

    def fill(self, broker, topic, mib, partitions, connections, more=()):
        """Writes about so many MiB of 1 KiB records in 1 MiB batches at the rate of --fill-mib."""
        rate = self.options.fill_mib
        result = self.generator.run(["produce", *at(broker, topic), "--partitions", str(partitions), "--connections", str(connections),
                                     *BIG_BATCHES, "--rate", str(rate * 1024), "--seconds", f"{mib / rate:.2f}", "--warmup-seconds", "0", *more])
        if result["errors"] or result["lost_requests"]:
            sys.exit(f"filling {topic}: {result['errors']}, {result['lost_requests']} requests lost")
        return result

    def end(self):
        """Stops what runs and removes what was written; the brokers' logs are kept with the results."""
        self.lines.close()
        for index, broker in enumerate(self.brokers):
            broker.stop()
            if (broker.folder / "broker.log").exists():
                shutil.copy(broker.folder / "broker.log", self.options.out / f"{self.name}-{index}.log")
        shutil.rmtree(self.work, ignore_errors=True)

    def drop(self, broker):
        """Ends a broker and removes its data, but for its log."""
        broker.kill()
        shutil.rmtree(broker.folder / "data", ignore_errors=True)


def at(broker, topic):
    return ["--bootstrap", f"127.0.0.1:{broker.port}", "--topic", topic, "--pid", str(broker.pid())]


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def disk_of(folder):
    """What the kernel says of the disk below a folder."""
    number = os.stat(folder).st_dev
    block = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    disk = block if (block / "queue").exists() else block.parent
    return {"name": disk.name, "bytes": int(text_of(disk / "size") or 0) * 512, "rotational": text_of(disk / "queue/rotational"),
            "write_cache": text_of(disk / "queue/write_cache"), "scheduler": text_of(disk / "queue/scheduler")}


def used_bytes(folder):
    """Disk space of all files below; those that go meanwhile don't count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            pass
    return total


def wait_until(what, seconds, done, pause=0.1):
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not after {seconds} s")
        time.sleep(pause)


def results_of(lines, kind):
    return [line for line in lines if line["kind"] == kind]
