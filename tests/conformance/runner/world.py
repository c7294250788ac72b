"""What a scenario plays in: brokers, a sidecar, the network before it, and drivers."""

import contextlib

from .driver import Driver
from .looking import Looking
from .processes import Broker, Sidecar
from .proxy import Proxy


class World(contextlib.ExitStack):
    """Fresh processes, ended with the scenario."""

    def __init__(self, scenario, command, folder):
        super().__init__()
        self.command = command
        self.folder = folder
        self.drivers = {}
        self.brokers = [Broker(f"broker-{shard}", folder) for shard in range(scenario.shards)]
        addresses = [broker.address for broker in self.brokers]
        for broker in self.brokers:
            self.callback(broker.end)
            broker.write_config(scenario.queue, addresses)
            broker.start()
        self.sidecar = Sidecar("sidecar", folder, addresses[0])
        self.callback(self.sidecar.end)
        self.sidecar.start()
        self.network = Proxy(self.sidecar.address)
        self.callback(self.network.down)
        self.looking = Looking(addresses)
        self.callback(self.looking.close)

    def driver(self, name):
        """The driver of this name, started when it is first asked for."""
        if name not in self.drivers:
            driver = Driver(self.command, self.network.address, self.folder / f"driver-{name}.log")
            self.drivers[name] = driver
            self.callback(driver.end)
        return self.drivers[name]

    def outputs(self):
        """What all processes printed, by name."""
        logs = sorted(self.folder.glob("*.log"))
        return {log.stem: log.read_text(errors="replace") for log in logs}
