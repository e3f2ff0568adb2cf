"""The floors: programs that do a row's input and output and nothing else, as brokers of the comparison."""
from brokers import Broker


class Floor(Broker):
    """A kind of it has `words`, what its command line says behind the address. Of `options` they read `binaries`
    and the sizes that readers have before them."""

    def command(self):
        return [self.options.binaries / "corelane-floor", "--listen", f"127.0.0.1:{self.port}", *self.words()]

    def prepare(self):
        pass

    def environment(self):
        return {}


class FloorRelaxed(Floor):
    """Answers what was received and checksummed, writes it later."""
    name = "floor-relaxed"
    flush = "none"

    def words(self):
        return ["produce", "--file", self.folder / "written", "--flush", self.flush]


class FloorDurable(FloorRelaxed):
    """Answers what a write, which is its own flush, made durable."""
    name = "floor-durable"
    flush = "dsync"


class FloorRequest(Floor):
    name = "floor-request"

    def words(self):
        return ["request"]


class FloorMemory(Floor):
    name = "floor-memory"

    def words(self):
        return ["fetch", "--source", "memory", "--file-mib", self.options.fill_mib]


class FloorSendfile(Floor):
    name = "floor-sendfile"

    def words(self):
        return ["fetch", "--source", "sendfile", "--file", self.folder / "sent", "--file-mib", self.options.fill_mib]


class FloorDirect(Floor):
    """Reads past the page cache, 1 MiB each, 4 in flight."""
    name = "floor-direct"

    def words(self):
        return ["fetch", "--source", "direct", "--file", self.folder / "read", "--file-mib", self.options.cold_mib]


FLOORS = {kind.name: kind for kind in (FloorRelaxed, FloorDurable, FloorRequest, FloorMemory, FloorSendfile, FloorDirect)}
