"""Brokers as processes, the load on them, and the machine: what perf/compare/run and perf/storage/run share."""
import json, os, pathlib, platform, re, shutil, signal, socket, statistics, struct, subprocess, sys, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
MIB = 1 << 20
GIB = 1 << 30
# A run beside more than this is marked as crowded; a rival's idle share of a core is part of it.
STEAL_SHARE_MAX, OTHER_SHARE_MAX = 0.01, 0.05


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core, command):
    """The command on one core; on any when that is None."""
    return [*([] if core is None else ["taskset", "-c", str(core)]), *map(str, command)]


def metadata_answered(port):
    """One Metadata request for no topic, version 1; True when it was answered."""
    request = struct.pack(">hhihi", 3, 1, 7, -1, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(8)
            return len(answer) == 8 and struct.unpack(">ii", answer)[1] == 7
    except OSError:
        return False


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid, field="VmRSS"):
    return int(re.search(rf"{field}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024


class Broker:
    """One broker process. Of `options` it reads `broker_core`, where None is all cores."""

    def __init__(self, options, folder):
        self.options, self.folder, self.process, self.port = options, folder, None, free_port()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.prepare()

    def start(self):
        """Starts and returns the milliseconds until the first answer to Metadata."""
        with open(self.folder / "broker.log", "ab") as log:
            self.began = time.monotonic()
            self.process = subprocess.Popen(pinned(self.options.broker_core, self.command()), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env={**os.environ, **self.environment()}, start_new_session=True)
        while not metadata_answered(self.port):
            if self.process.poll() is not None or time.monotonic() - self.began > 120:
                sys.exit(f"{self.name} did not start; see {self.folder}/broker.log")
            time.sleep(0.001)
        return self.age_ms()

    def age_ms(self):
        return (time.monotonic() - self.began) * 1000

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pid(self):
        return self.process.pid


class Corelane(Broker):
    """Of `options` it reads `binaries` and `corelane_set`, words for its command line, too."""
    name = "corelane"

    def prepare(self):
        self.admin_port = free_port()

    def command(self):
        cores = [] if self.options.broker_core is None else ["--set", f"cores={self.options.broker_core}"]
        return [self.options.binaries / "corelane", "start", "--data", self.folder / "data", "--listen", f"127.0.0.1:{self.port}",
                *cores, "--set", f"admin.listener=127.0.0.1:{self.admin_port}", *self.options.corelane_set]

    def environment(self):
        return {}

    def metric(self, name):
        """Of all shards together."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as page:
            found = re.findall(rf"^corelane_{name}\{{[^}}]*\}} (\S+)", page.read().decode(), re.M)
        if not found:
            sys.exit(f"there is no metric corelane_{name}")
        return sum(map(float, found))

    def logged(self, message):
        """The fields of every line of its log that says `message`, oldest first."""
        lines = (self.folder / "broker.log").read_text().splitlines()
        of_message = [line.partition(f": {message} ")[2] for line in lines if f": {message} " in line]
        return [dict(re.findall(r'(\w+)="?([^\s"]+)', fields)) for fields in of_message]


class CorelaneGlommio(Corelane):
    """The same binary with its shards in executors of glommio."""
    name = "corelane-glommio"

    def command(self):
        return [*super().command(), "--set", "host=glommio"]


class Generator:
    """corelane-load. Of `options` it reads `binaries` and `load_core`, where None is any core."""

    def __init__(self, options):
        self.options = options

    def start(self, arguments, nice=0):
        # Nobody reads its lines while it runs: they would fill the pipe.
        quiet = ["--quiet"] if arguments[0] in ("produce", "consume") else []
        command = ["nice", "-n", nice, self.options.binaries / "corelane-load", *arguments, *quiet]
        return subprocess.Popen(pinned(self.options.load_core, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def outcome(self, process):
        out, err = process.communicate()
        if process.returncode not in (0, 2) or not out.strip():
            sys.exit(f"the load failed: {err}")
        return json.loads(out)

    def run(self, arguments):
        return self.outcome(self.start(arguments))


def is_crowded(result, own_cpu_seconds=0):
    """`own_cpu_seconds`: of other processes that belong to the run."""
    beside, seconds = result["surroundings"], result["seconds"]
    return (beside["steal_seconds"] > STEAL_SHARE_MAX * seconds
            or beside["other_cpu_seconds"] - own_cpu_seconds > OTHER_SHARE_MAX * seconds)


def output_of(*command):
    try:
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def text_of(path):
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def environment(options):
    """What a figure depends on. Of `options` it reads `work`."""
    cpus = re.findall(r"model name\s*: (.*)", text_of("/proc/cpuinfo"))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "commit": output_of("git", "-C", ROOT, "rev-parse", "HEAD"),
        "uncommitted": output_of("git", "-C", ROOT, "status", "--short"),
        "kernel": platform.release(), "cpu": cpus[0] if cpus else platform.processor(), "cpu_count": os.cpu_count(),
        "memory": re.search(r"MemTotal:\s+(.*)", text_of("/proc/meminfo"))[1],
        "filesystem": output_of("findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", "-T", options.work),
        "clocksource": text_of("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "mitigations": {path.name: path.read_text().strip() for path in pathlib.Path("/sys/devices/system/cpu/vulnerabilities").glob("*")},
        "pressure_cpu": text_of("/proc/pressure/cpu"),
        "command": sys.argv,
    }


def built_binaries(features=()):
    """Builds corelane and corelane-load; returns their folder."""
    subprocess.run(["cargo", "build", "--release", "--bins", *(["--features", ",".join(features)] if features else [])], cwd=ROOT, check=True)
    meta = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, check=True, capture_output=True, text=True)
    return pathlib.Path(json.loads(meta.stdout)["target_directory"]) / "release"


def median_spread(values, digits=3):
    if not values:
        return "-"
    return f"{min(values):.{digits}f} / **{statistics.median(values):.{digits}f}** / {max(values):.{digits}f}"
