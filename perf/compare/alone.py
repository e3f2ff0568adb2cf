"""Rows on brokers of their own: start, memory and CPU when idle and empty, and recovery after SIGKILL beside data."""
import contextlib, shutil, statistics, sys, time

from brokers import MIB, Generator, cpu_seconds, rss_bytes, say
from rows import P1
from wire import LATEST, Wire, WireError, batch

# A broker that doesn't take records on every partition so long after its start is taken for lost.
SERVE_SECONDS_MAX = 120
# MiB a second at which data is written before the kill; every system must keep up with it.
FILL_MIB = 150
# Load that the kill hits.
KILLED_UNDER_SECONDS = 2


@contextlib.contextmanager
def fresh(kind, options, purpose):
    """A broker in an empty folder, which is removed."""
    broker = kind(options, options.work / f"{purpose}-{kind.name}")
    try:
        yield broker
    finally:
        broker.stop()
        shutil.rmtree(broker.folder, ignore_errors=True)


def start_and_idle(options, kinds):
    """O1, O3, O4: time to the first Metadata answer, memory and CPU when idle and empty; each in a fresh folder."""
    found = {kind.name: {"start_ms": [], "rss_bytes": 0, "idle_cpu_share": 0.0} for kind in kinds}
    for index in range(options.starts):
        for kind in kinds:
            of_kind = found[kind.name]
            with fresh(kind, options, "start") as broker:
                of_kind["start_ms"].append(broker.start())
                if index + 1 == options.starts:
                    time.sleep(options.idle_seconds)
                    before, began = cpu_seconds(broker.pid()), time.monotonic()
                    time.sleep(options.idle_seconds)
                    of_kind["idle_cpu_share"] = (cpu_seconds(broker.pid()) - before) / (time.monotonic() - began)
                    of_kind["rss_bytes"] = rss_bytes(broker.pid())
    for name, of in found.items():
        say(f"{name}: start {statistics.median(of['start_ms']):.0f} ms, {of['rss_bytes'] / MIB:.1f} MiB resident, {of['idle_cpu_share'] * 100:.2f}% of a core idle")
    return found


def recovery(options, kinds):
    """O2: SIGKILL under load beside data, start, until every partition takes records; the page cache stays as it is."""
    found = {}
    for kind in kinds:
        with fresh(kind, options, "recovery") as broker:
            broker.start()
            fill(options, broker)
            found[kind.name] = [killed_and_started(options, broker) for _ in range(options.starts)]
    return found


def load(broker, seconds):
    return ["produce", "--bootstrap", f"127.0.0.1:{broker.port}", "--topic", "recovery", *P1, "--rate", str(FILL_MIB * 1024), "--seconds", f"{seconds:.1f}", "--warmup-seconds", "0"]


def fill(options, broker):
    filled = Generator(options).run(load(broker, options.recovery_gib * 1024 / FILL_MIB))
    if filled["errors"] or filled["lost_requests"]:
        sys.exit(f"filling {broker.name}: {filled['errors']}, {filled['lost_requests']} requests lost")


def killed_and_started(options, broker):
    partitions = {("recovery", partition) for partition in range(16)}
    with Wire(broker.port) as wire:
        ends = wire.offsets(partitions, LATEST)
    under = Generator(options).start(load(broker, 60))
    time.sleep(KILLED_UNDER_SECONDS)
    broker.kill()
    under.kill()
    under.wait()
    result = {"metadata_ms": broker.start()}
    result["served_ms"] = served_ms(broker, partitions, ends)
    result |= {"cpu_seconds": cpu_seconds(broker.pid()), "rss_bytes": rss_bytes(broker.pid())}
    say(f"O2 {broker.name}: Metadata {result['metadata_ms']:.0f} ms, every partition takes records {result['served_ms']:.0f} ms, {result['cpu_seconds']:.1f} cpu-s")
    return result


def served_ms(broker, partitions, ends):
    """When each partition took a record behind those acknowledged before."""
    left, records = set(partitions), batch([b"after the kill"])
    while left:
        try:
            with Wire(broker.port) as wire:
                taken = wire.produce(sorted(left), records)
        except (OSError, WireError):
            taken = {}
        lost = [partition for partition, offset in taken.items() if offset < ends[partition]]
        if lost:
            sys.exit(f"{broker.name}: acknowledged records are lost: {lost}")
        left -= taken.keys()
        if broker.age_ms() > SERVE_SECONDS_MAX * 1000:
            sys.exit(f"{broker.name}: partitions that take nothing: {sorted(left)}")
        time.sleep(0.002)
    return broker.age_ms()

