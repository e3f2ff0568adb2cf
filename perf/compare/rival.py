"""Another broker that speaks the Kafka protocol, by its command line."""
import shlex

from brokers import Broker


class Rival(Broker):
    """Of `options` it reads `rival`, where {port} and {folder} stand for its port and an empty folder."""
    name = "rival"

    def prepare(self):
        pass

    def command(self):
        return [word.format(port=self.port, folder=self.folder) for word in shlex.split(self.options.rival)]

    def environment(self):
        return {}
