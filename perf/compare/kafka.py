"""Apache Kafka as a broker of the comparison."""
import subprocess

from brokers import Broker, free_port


class Kafka(Broker):
    """Apache Kafka as one KRaft node with its defaults, but for what one node needs and for freeing disk early."""
    name = "kafka"

    def prepare(self):
        controller = free_port()
        self.properties = self.folder / "server.properties"
        self.properties.write_text("\n".join([
            "process.roles=broker,controller", "node.id=1",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}", "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT", "inter.broker.listener.name=PLAINTEXT",
            f"controller.quorum.voters=1@127.0.0.1:{controller}", f"log.dirs={self.folder}/data",
            "offsets.topic.replication.factor=1", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
            "log.segment.delete.delay.ms=1000", ""]))
        with open(self.folder / "broker.log", "ab") as log:
            subprocess.run([self.options.kafka / "bin" / "kafka-storage.sh", "format", "-t", "corelaneComparison0000", "-c",
                            self.properties], check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def command(self):
        return [self.options.kafka / "bin" / "kafka-server-start.sh", self.properties]

    def environment(self):
        return {"KAFKA_HEAP_OPTS": self.options.kafka_heap}
