#!/usr/bin/env python3
"""Makes a report of a results folder of perf/compare/run: one page in Markdown, and plots as SVG beside it.

Reads `runs/` or `runs.tar.xz`, `environment.json` and what else lies there; measures nothing. A report is never
edited: make it again, or write another that supersedes it.
"""
import argparse, collections, json, pathlib, statistics, sys, tarfile

# Shared modules leave no compiled copy in the source tree.
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import svg
from brokers import ROOT, median_spread
from histogram import Histogram

# By how many "nines" a percentile stands on its axis: 0 is the median's half, 4 is p99.99.
PERCENTS = [100 * (1 - 10 ** (-step / 40)) for step in range(0, 4 * 40 + 1)]
NINES = [(1, "p0"), (2, "p50"), (10, "p90"), (100, "p99"), (1000, "p99.9"), (10_000, "p99.99")]
# A percentile that fewer runs' samples lie beyond says little.
SAMPLES_BEYOND_MIN = 10


def runs_of(folder):
    """Every run, in the order of its start."""
    texts = [path.read_text() for path in folder.glob("runs/*.json")]
    archive = folder / "runs.tar.xz"
    if not texts and archive.exists():
        with tarfile.open(archive) as files:
            texts = [files.extractfile(member).read() for member in files if member.name.startswith("runs/") and member.name.endswith(".json")]
    return sorted(map(json.loads, texts), key=lambda run: run["started_unix_ms"])


class Results:
    def __init__(self, folder):
        self.runs = runs_of(folder)
        if not self.runs:
            sys.exit(f"{folder}: neither runs/*.json nor runs.tar.xz")
        self.environment = json.loads((folder / "environment.json").read_text())

    def rows(self):
        return list(dict.fromkeys(run["row"] for run in self.runs))

    def systems(self, row):
        """Runs by system, in the order of a pair."""
        found = collections.defaultdict(list)
        for run in self.runs:
            if run["row"] == row:
                found[run["system"]].append(run)
        return found


def latencies(runs):
    """One histogram of all runs."""
    return sum((Histogram.decode(run["latency"]["histogram"]) for run in runs), Histogram())


def has_latency(runs):
    return any((run.get("latency") or {}).get("count") for run in runs)


def middle_run(runs):
    return sorted(runs, key=lambda run: run["latency"]["p99_us"])[len(runs) // 2]


def percentile_points(histogram):
    """Along the nines, as far as enough samples lie beyond."""
    percents = [percent for percent in PERCENTS if histogram.count() * (100 - percent) / 100 >= SAMPLES_BEYOND_MIN]
    return [(100 / (100 - percent), us / 1000) for percent, us in zip(percents, histogram.percentiles(percents))]


def percentiles_plot(row, systems):
    series = {system: percentile_points(latencies(runs)) for system, runs in systems.items() if has_latency(runs)}
    series = {system: points for system, points in series.items() if points}
    return series and svg.lines(f"{row}: latency by percentile, all runs together", series, "percentile", "latency, ms", True, True, NINES, False)


def over_time_plot(row, systems):
    series = {}
    for system, runs in systems.items():
        if has_latency(runs):
            seconds = [second for second in middle_run(runs)["series"] if second["p99_us"]]
            series[system] = [(second["at"], second["p99_us"] / 1000) for second in seconds]
    series = {system: points for system, points in series.items() if len(points) > 1}
    return series and svg.lines(f"{row}: p99 of each second, the run with the median p99", series, "seconds since the measured window began",
                                "p99 latency, ms", y_log=True, with_markers=False)


def load_plot(row, results):
    """Throughput against latency: the row at full load and at the shares of it that were measured."""
    series = collections.defaultdict(list)
    for name in results.rows():
        if name == row or name.rpartition("-")[0] == row and name.rpartition("-")[2].isdigit():
            for system, runs in results.systems(name).items():
                if has_latency(runs):
                    rate = statistics.median(run["records_per_second"] for run in runs) / 1000
                    series[system].append((rate, statistics.median(run["latency"]["p99_us"] for run in runs) / 1000))
    series = {system: sorted(points) for system, points in series.items() if len(points) > 1}
    return series and svg.lines(f"{row}: throughput against latency, medians", series, "thousand records a second", "p99 latency, ms", y_log=True)


def spread(values):
    return min(values), statistics.median(values), max(values)


def cpu_plot(results, kind, field, title, unit):
    """Bars of all rows of a kind."""
    groups = {}
    for row in results.rows():
        found = {system: spread([run["broker"][field] for run in runs if run.get("broker")]) for system, runs in results.systems(row).items()
                 if any(run.get("broker") for run in runs) and all(run["kind"] == kind for run in runs)}
        # A reader beside a load is measured with the load.
        if found and not row.endswith("-reader"):
            groups[row] = {system: of for system, of in found.items() if of[0] > 0}
    groups = {row: group for row, group in groups.items() if group}
    return groups and svg.bars(title, groups, unit, y_log=True)


def fingerprint(environment):
    """What a figure depends on, as a table; long values in one line."""
    lines = ["| | |", "|---|---|"]
    for name, value in environment.items():
        words = " ".join(map(str, value)) if isinstance(value, list) else "; ".join(f"{key}: {one}" for key, one in sorted(value.items())) if isinstance(value, dict) else str(value)
        lines.append(f"| {name.replace('_', ' ')} | {' '.join(words.split()).replace('|', chr(92) + '|') or '-'} |")
    return lines


def latency_table(systems):
    names = ["p50", "p90", "p99", "p99.9", "p99.99"]
    lines = ["| system | runs | requests | k rec/s | " + " | ".join(f"{name} ms" for name in names) + " | max ms |", "|" + "---|" * (len(names) + 5)]
    for system, runs in systems.items():
        if has_latency(runs):
            histogram = latencies(runs)
            cells = [f"{us / 1000:.2f}" for us in histogram.percentiles([float(name[1:]) for name in names])]
            rate = median_spread([run["records_per_second"] / 1000 for run in runs], 1)
            lines.append(f"| {system} | {len(runs)} | {histogram.count():,} | {rate} | {' | '.join(cells)} | {histogram.max() / 1000:.2f} |")
    return lines


def cpu_table(results):
    lines = ["| row | system | runs | cpu-s/M ev | cpu-us/request | cpu-s/GiB | kernel threads, cpu-s | resident MiB |", "|---|---|---|---|---|---|---|---|"]
    for row in results.rows():
        for system, runs in results.systems(row).items():
            own = [run for run in runs if run.get("broker")]
            if own:
                of = lambda field, digits, scale=1: median_spread([run["broker"][field] / scale for run in own], digits)
                kernel = median_spread([run["surroundings"]["kernel_cpu_seconds"] for run in own], 2)
                lines.append(f"| {row} | {system} | {len(own)} | {of('cpu_seconds_per_million_records', 3)} | {of('cpu_micros_per_request', 2)} |"
                             f" {of('cpu_seconds_per_gib', 3)} | {kernel} | {of('rss_bytes_after', 0, 1 << 20)} |")
    return lines


def unfit(runs):
    """Runs that are not fit to be quoted, with their reasons."""
    lines = []
    for run in runs:
        reasons = [*run["invalid_because"], *(["crowded: other processes or stolen time beside it"] if run.get("crowded") else [])]
        if reasons:
            lines.append(f"- {run['row']} {run['system']} {run['pair']}: {'; '.join(reasons)}")
    return lines or ["- every run was valid and undisturbed"]


class Page:
    def __init__(self, out, name):
        self.out, self.name, self.lines = out, name, []

    def plot(self, what, drawn):
        """Writes the plot and shows it; nothing when there was nothing to draw."""
        if drawn:
            file = f"{self.name}-{what}.svg"
            (self.out / file).write_text(drawn)
            self.lines += [f"![{what}]({file})", ""]

    def write(self):
        path = self.out / f"{self.name}.md"
        path.write_text("\n".join(self.lines))
        return path


def report(results, question, out):
    date = results.environment["date"].split()[0]
    page = Page(out, f"{date}-{question}")
    unfit_lines = unfit(results.runs)
    page.lines += [f"# {question.replace('-', ' ').capitalize()}, {date}", "",
                   "Method: perf/README.md. Figures are min / **median** / max of the runs; percentiles are of all runs of a system together, up to where"
                   f" {SAMPLES_BEYOND_MIN} samples lie beyond. Times count from the intended send. CPU is the broker process's.", "",
                   "## CPU of an event", ""]
    page.plot("cpu-produce", cpu_plot(results, "produce", "cpu_seconds_per_million_records", "Broker CPU of a million records written", "cpu-s per million records"))
    page.plot("cpu-consume", cpu_plot(results, "consume", "cpu_seconds_per_gib", "Broker CPU of a GiB read", "cpu-s per GiB"))
    page.lines += [*cpu_table(results), ""]
    for row in results.rows():
        systems = results.systems(row)
        if any(map(has_latency, systems.values())):
            page.lines += [f"## {row}: latency", "", *latency_table(systems), ""]
            page.plot(f"{row}-percentiles", percentiles_plot(row, systems))
            page.plot(f"{row}-over-time", over_time_plot(row, systems))
            page.plot(f"{row}-load", load_plot(row, results))
    page.lines += ["## Host and programs", "", *fingerprint(results.environment), "", "## Runs not fit to be quoted", "", *unfit_lines, ""]
    return page.write()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path, help="--out of perf/compare/run")
    parser.add_argument("--question", default="side-by-side", help="what the report answers, in a few words with hyphens; part of its name")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "perf" / "reports", help="folder for the page and its plots")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(report(Results(options.results), options.question, options.out))


if __name__ == "__main__":
    main()
