"""Summary: the tables of a report, in Markdown, from the runs and nothing else."""
import time

from brokers import GIB, MIB, median_spread


def per_million(run):
    return run["broker"]["cpu_seconds_per_million_records"]


def per_gib(run):
    return run["broker"]["cpu_seconds_per_gib"]


def per_request(run):
    return run["broker"]["cpu_micros_per_request"]


def kernel_per_gib(run):
    return run["surroundings"]["kernel_cpu_seconds"] / (run["bytes"] / GIB) if run["bytes"] else 0


def gb_per_second(run):
    return run["bytes"] / run["seconds"] / 1e9


def p99(run):
    return run["latency"]["p99_us"]


def spread_of(runs, value, digits=3):
    return median_spread(list(map(value, runs)), digits)


def percentiles(runs):
    """Of the run whose p99 is the middle one."""
    middle = sorted(runs, key=p99)[len(runs) // 2]["latency"]
    return " / ".join(f"{middle[name] / 1000:.2f}" for name in ("p50_us", "p99_us", "p99_9_us", "p99_99_us"))


class Runs:
    def __init__(self, runs):
        self.runs = runs

    def of(self, row, system):
        return [run for run in self.runs if (run["row"], run["system"]) == (row, system)]

    def ratios(self, row, base, system, value):
        """The base's figure divided by the system's, pair by pair."""
        pairs = [{run["pair"]: value(run) for run in self.of(row, name)} for name in (base, system)]
        return [pairs[0][pair] / own for pair, own in sorted(pairs[1].items()) if pairs[0].get(pair) and own]

    def x(self, row, base, system, value, digits=1):
        return "1" if system == base else median_spread(self.ratios(row, base, system, value), digits)

    def over_floor(self, row, system, value):
        floor = row.floors().get(system)
        return median_spread(self.ratios(row.name, system, floor, value), 2) if floor else "-"


def summary(options, idle, recovered, rows, runs, found):
    lines = [
        f"# Corelane and Apache Kafka side by side, {time.strftime('%Y-%m-%d')}", "",
        "Question: what does an event cost the broker's CPU, and how long does it take? Method: perf/README.md. Raw results: `runs/`.", "",
        f"- Corelane {found['commit'][:12]}{' with uncommitted changes' if found['uncommitted'] else ''}, {found['kafka']}, `{options.kafka_heap}`,"
        f" at least {options.warm_kafka} s of load before the first run",
        f"- {found['cpu']}, {found['cpu_count']} cores, Linux {found['kernel']}, {found['filesystem']}, {found['congestion_control']}",
        f"- brokers on core {options.broker_core}, load on core {options.load_core}; {options.pairs} interleaved runs of {options.seconds:g} s"
        f" after {options.warmup_seconds:g} s, a fresh topic each; closed loop unless a rate is named, so latency is that of saturation",
        "- `relaxed` acknowledges from memory, as Kafka does; `durable` after the device's flush. Figures are min / **median** / max;"
        " x is Kafka's CPU divided by the system's, per pair; / floor is the system's divided by that of the program that does the row's"
        " input and output and nothing else. Latencies are p50 / p99 / p99.9 / p99.99 of the median run.", ""]
    runs = Runs(runs)
    for row in rows:
        lines += [f"## {row.name}: {row.title}", "", *TABLES[row.kind](runs, row), ""]
    if idle:
        lines += ["## O1, O3, O4: start and idle, empty", "", "| system | start to the first Metadata answer, ms | resident MiB | idle CPU, % of a core |", "|---|---|---|---|"]
        lines += [f"| {name} | {median_spread(of['start_ms'], 0)} | {of['rss_bytes'] / MIB:.1f} | {of['idle_cpu_share'] * 100:.2f} |" for name, of in idle.items()]
        lines.append("")
    if recovered:
        lines += [f"## O2: SIGKILL under load beside {options.recovery_gib:g} GiB, page cache warm", "",
                  "| system | to the first Metadata answer, ms | until every partition took a record, ms | cpu-s | resident MiB |", "|---|---|---|---|---|"]
        for name, of in recovered.items():
            lines.append(f"| {name} | {spread_of(of, lambda one: one['metadata_ms'], 0)} | {spread_of(of, lambda one: one['served_ms'], 0)} |"
                         f" {spread_of(of, lambda one: one['cpu_seconds'], 2)} | {spread_of(of, lambda one: one['rss_bytes'] / MIB, 0)} |")
        lines.append("")
    return "\n".join([*lines, *remarks(runs.runs)]) + "\n"


def table(head, row, runs, name, line):
    """A line for each system that has runs of that name."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for system in row.systems:
        own = runs.of(name, system)
        if own:
            lines.append(f"| {' | '.join([system, *line(system, own)])} |")
    return lines


def produce_table(runs, row):
    base = row.systems[0]
    head = ["system", "cpu-s/M ev", "cpu-us/request", "cpu-s/GiB", "kernel threads, cpu-s/GiB", "k rec/s", "latency, ms", "resident MiB after", "x", "/ floor"]
    return table(head, row, runs, row.name, lambda system, own: [
        spread_of(own, per_million), spread_of(own, per_request, 2), spread_of(own, per_gib), spread_of(own, kernel_per_gib),
        spread_of(own, lambda run: run["records_per_second"] / 1000, 0), percentiles(own),
        spread_of(own, lambda run: run["broker"]["rss_bytes_after"] / MIB, 0), runs.x(row.name, base, system, per_million),
        runs.over_floor(row, system, per_million)])


def mixed_table(runs, row):
    base, reader = row.systems[0], f"{row.name}-reader"
    head = ["system", "offered k rec/s", "cpu-s/M ev", "x", "produce latency, ms", "end to end, ms", "x of end to end p99"]
    return table(head, row, runs, row.name, lambda system, own: [
        spread_of(own, lambda run: run["offered_records_per_second"] / 1000, 0), spread_of(own, per_million), runs.x(row.name, base, system, per_million),
        percentiles(own), percentiles(runs.of(reader, system)), runs.x(reader, base, system, p99)])


def read_table(runs, row):
    base = row.systems[0]
    return table(["system", "cpu-s/GiB", "GB/s", "x", "/ floor", "GB/s, share of floor"], row, runs, row.name, lambda system, own: [
        spread_of(own, per_gib), spread_of(own, gb_per_second, 2), runs.x(row.name, base, system, per_gib),
        runs.over_floor(row, system, per_gib), runs.over_floor(row, system, gb_per_second)])


def tail_table(runs, row):
    """What a reader at the log's end adds to the broker's CPU, and the time from intended send to its arrival."""
    def line(system, own):
        without = {run["pair"]: per_gib(run) for run in runs.of(f"{row.name}-without", system)}
        added = [per_gib(run) - without[run["pair"]] for run in own if run["pair"] in without]
        return [median_spread(list(without.values())), median_spread(added), percentiles(runs.of(f"{row.name}-reader", system))]
    return table(["system", "cpu-s/GiB produced, no reader", "cpu-s/GiB the reader adds", "end to end, ms"], row, runs, f"{row.name}-with", line)


TABLES = {"produce": produce_table, "hot": read_table, "cold": read_table, "tail": tail_table, "mixed": mixed_table}


def remarks(runs):
    """Runs that are not fit to be quoted, by name."""
    lines = []
    for run in runs:
        reasons = list(run["invalid_because"])
        if run["crowded"]:
            beside = run["surroundings"]
            reasons.append(f"crowded: {beside['other_cpu_seconds']:.1f} cpu-s of other processes, {beside['steal_seconds']:.2f} s steal in {run['seconds']:.0f} s")
        lines += [f"- {run['row']} {run['system']} {run['pair']}: {reason}" for reason in reasons]
    return ["## Remarks", "", *(lines or ["- every run was valid and undisturbed"])]
