"""What a scenario plays in: brokers, a sidecar, the network before it, and drivers."""

import contextlib

from .collector import Collector
from .driver import Driver
from .looking import Looking
from .neighbour import Neighbour
from .processes import Broker, Sidecar
from .proxy import Proxy
from .stand_in import StandIn
from .volume import Volume


class World(contextlib.ExitStack):
    """Fresh processes, ended with the scenario."""

    def __init__(self, scenario, command, folder):
        super().__init__()
        self.command = command
        self.folder = folder
        self.drivers = {}
        self.volume = self.enter_context(Volume(folder / "volume", scenario.volume_mib))
        data = self.volume.path
        self.collector = Collector() if scenario.traces else None
        traces = self.collector.arguments() if scenario.traces else []
        if scenario.traces:
            self.callback(self.collector.close)
        self.brokers = [Broker(f"broker-{shard}", folder, data, traces) for shard in range(scenario.shards)]
        addresses = [broker.address for broker in self.brokers]
        for broker in self.brokers:
            self.callback(broker.end)
            broker.write_config(scenario.queue, addresses)
            broker.start()
        self.sidecar = Sidecar("sidecar", folder, addresses[0], traces)
        self.callback(self.sidecar.end)
        self.sidecar.start()
        self.network = Proxy(addresses[0] if scenario.through == "broker" else self.sidecar.address)
        self.callback(self.network.down)
        self.address = f"unix:{self.sidecar.socket}" if scenario.through == "socket" else self.network.address
        self.looking = Looking(addresses)
        self.callback(self.looking.close)

    def driver(self, name):
        """The driver of this name, started when it is first asked for."""
        if name not in self.drivers:
            driver = Driver(self.command, self.address, self.folder / f"driver-{name}.log")
            self.drivers[name] = driver
            self.callback(driver.end)
        return self.drivers[name]

    def crowd(self):
        """Lets another application take the memory that the sidecar has for what is being received."""
        self.neighbour = Neighbour(self.sidecar.address)
        self.callback(self.neighbour.close)

    def calm(self):
        """And end."""
        self.neighbour.close()

    def stand_in(self):
        """Lets applications speak to a stand-in for the sidecar."""
        stand_in = StandIn()
        self.callback(stand_in.close)
        self.network.turn(stand_in.address)

    def outputs(self):
        """What all processes printed, by name."""
        logs = sorted(self.folder.glob("*.log"))
        return {log.stem: log.read_text(errors="replace") for log in logs}
