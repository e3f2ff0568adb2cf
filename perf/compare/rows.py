"""What is measured: loads, the systems they are put on, and rows, each a load on some systems."""
import dataclasses, re

from brokers import MIB
from floor import FLOORS

P1 = ["--partitions", "16", "--connections", "4", "--in-flight", "5", "--record-bytes", "1024", "--batch-bytes", str(MIB)]
P4 = ["--partitions", "16", "--connections", "16", "--in-flight", "5", "--record-bytes", "1024", "--batch-bytes", "16384"]
P5 = ["--partitions", "16", "--connections", "256", "--in-flight", "1", "--record-bytes", "100", "--batch-records", "1"]
P6 = ["--partitions", "16", "--connections", "256", "--in-flight", "16", "--record-bytes", "100", "--batch-records", "1"]
P8 = ["--partitions", "1000", "--connections", "100", "--in-flight", "5", "--record-bytes", "1024", "--batch-records", "1", "--partitions-per-request", "16"]
CONSUME = ["--connections", "1", "--max-bytes", str(MIB), "--partition-max-bytes", str(MIB)]

# By name: the broker, and the settings of the topic that make its promise.
SYSTEMS = {
    "kafka": ("kafka", []),
    "kafka-flush": ("kafka", ["--topic-config", "flush.messages=1"]),
    "corelane-relaxed": ("corelane", ["--topic-config", "ack.durability=relaxed"]),
    "corelane-durable": ("corelane", ["--topic-config", "ack.durability=durable"]),
    "glommio-relaxed": ("corelane-glommio", ["--topic-config", "ack.durability=relaxed"]),
    "glommio-durable": ("corelane-glommio", ["--topic-config", "ack.durability=durable"]),
    "rival": ("rival", []),
} | {name: (name, []) for name in FLOORS}


@dataclasses.dataclass(frozen=True)
class Row:
    """The first system is the one the others are compared with. `share`: of what it reached on the row `share_of`;
    None is as fast as is acknowledged."""
    name: str
    kind: str
    title: str
    load: list
    systems: tuple = ("kafka", "corelane-relaxed", "corelane-durable")
    share: float | None = None
    share_of: str | None = None

    def floors(self):
        """By the systems of the row that they are a floor of."""
        of = FLOORS_OF.get(self.share_of or self.name, {}) if self.kind != "mixed" else {}
        return {system: floor for system, floor in of.items() if system in self.systems}

    def with_hosts(self):
        """Each of Corelane's in the other host, too, right behind it."""
        twins = {"corelane-relaxed": "glommio-relaxed", "corelane-durable": "glommio-durable"}
        return dataclasses.replace(self, systems=tuple(name for system in self.systems for name in (system, twins.get(system)) if name))

    def with_rival(self):
        """With its own defaults; not where the row is about a flush, which has another name in each broker."""
        return self if "kafka-flush" in self.systems else dataclasses.replace(self, systems=(*self.systems, "rival"))

    def with_floors(self):
        """Each in every pair, behind the others."""
        return dataclasses.replace(self, systems=(*self.systems, *dict.fromkeys(self.floors().values()), *MORE_FLOORS.get(self.name, [])))


ROWS = {row.name: row for row in [
    Row("P1", "produce", "1 KiB records, 1 MiB batches, 16 partitions, 4 connections x 5 in flight", P1),
    Row("P4", "produce", "1 KiB records, 16 KiB batches, 16 partitions, 16 connections x 5 in flight", P4),
    Row("P5", "produce", "100 B, 1 record a request, 16 partitions, 256 connections x 1 in flight", P5),
    Row("P6", "produce", "100 B, 1 record a request, 16 partitions, 256 connections x 16 in flight", P6),
    Row("P7", "produce", "P4 acknowledged after a flush; Kafka's topics have flush.messages=1", P4, systems=("kafka-flush", "corelane-durable")),
    Row("P8", "produce", "1 KiB records, 1,000 partitions, 100 connections x 5 in flight, 16 partitions a request with 1 record each", P8),
    Row("C1", "hot", "one reader, 1 MiB fetches, over what was just written in 1 MiB batches, again and again, the fourth time and on", CONSUME, systems=("kafka", "corelane-relaxed")),
    Row("C1-tail", "tail", "one reader at the log's end, 1 MiB batches at a fixed rate", P1),
    Row("C2", "cold", "one reader, 1 MiB fetches, over what was written in 1 MiB batches and never read, page cache dropped", CONSUME,
        systems=("kafka", "corelane-relaxed")),
    Row("M1", "mixed", "P4's requests at half of Kafka's saturation, one reader at the log's end", P4, share=0.5, share_of="P4"),
]}
# With --floor: the programs that do a row's input and output and nothing else, and who is divided by which.
OF_WRITES = {"kafka": "floor-relaxed", "corelane-relaxed": "floor-relaxed", "corelane-durable": "floor-durable", "kafka-flush": "floor-durable"}
OF_REQUESTS = {"kafka": "floor-request", "corelane-relaxed": "floor-request", "corelane-durable": "floor-request"}
FLOORS_OF = {
    "P1": OF_WRITES, "P4": OF_WRITES, "P7": OF_WRITES, "P8": OF_WRITES, "P5": OF_REQUESTS, "P6": OF_REQUESTS,
    "C1": {"kafka": "floor-sendfile", "corelane-relaxed": "floor-sendfile"},
    "C2": {"kafka": "floor-direct", "corelane-relaxed": "floor-direct"},
}
# To look at; nobody is divided by them.
MORE_FLOORS = {"C1": ["floor-memory"]}
# Measured on brokers of their own, before the others.
ALONE = ("start", "O2")
# Rows of the matrix that are lines of another row's table.
PART_OF = {"M2": "M1", "O1": "start", "O3": "start", "O4": "start"}


def row_named(name):
    """A row by its name; P4-50 is P4 at 50% of what Kafka reached there. None when there is none."""
    found = re.fullmatch(r"(P\d)-(\d\d?)", name)
    if not found or found[1] not in ROWS:
        return ROWS.get(name)
    at_full_load = ROWS[found[1]]
    return dataclasses.replace(at_full_load, name=name, title=f"{at_full_load.title}; at {found[2]}% of what {at_full_load.systems[0]} reached",
                               share=int(found[2]) / 100, share_of=at_full_load.name)
