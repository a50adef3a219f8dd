"""A real worker of Dynamo 0.6 or later that publishes given values on a signal. Its release
is that of the installed ai-dynamo-runtime (tested with 0.6.1, 0.9.1 and 1.6.1).

usage: event_worker.py NAMESPACE COMPONENT MODEL FILE

It serves COMPONENT/generate and registers the model directory MODEL there, with
total_kv_blocks 1000 and max_num_seqs 100. FILE contains in JSON what to publish: the
arguments of the release's own publishers. The worker reads it again at each SIGUSR1.

    0.6.1  {"worker": [11, 100, 4, null], "kv": [42, 1000, 0.25, 0.5], "spec": [2, 10, 20, 15, [8, 7]]}
    0.9.1  {"load": {"dp_rank": 0, "active_decode_blocks": 47}}
    1.6.1  {"load": {"kv_used_blocks": 47}, "pass": {"scheduled_num_decode_requests": 11, ...}}

Each part may be absent. In each release, "page" is what an engine adds to the worker's
metrics. With PASSES=none in the environment no forward passes are published, as by engines
without that option. A "pass" is published repeatedly, as by a busy engine: the worker prints
"at work", publishes until the file has no "pass" any more, and then prints "forward passes: N"
with their number. SIGTERM shuts the runtime down. The process continues, as an engine does.
"""

import asyncio
import json
import os
import signal
import sys

import uvloop

import dynamo.llm as llm
from dynamo.runtime import DistributedRuntime, dynamo_worker

PASS_SECONDS = 0.05


class Load:
    """Publishes as 0.6.1 does: everything in one event."""

    def __init__(self, component):
        self.component = component
        self.publisher = llm.WorkerMetricsPublisher()

    async def start(self):
        await self.publisher.create_endpoint(self.component)

    def publish(self, values):
        if "worker" not in values:
            return
        spec = llm.SpecDecodeStats(*values["spec"]) if "spec" in values else None
        self.publisher.publish(
            llm.ForwardPassMetrics(llm.WorkerStats(*values["worker"]), llm.KvStats(*values["kv"]), spec)
        )


class ActiveLoad:
    """Publishes as 0.9.1 does."""

    def __init__(self, place):
        self.place = place
        self.publisher = llm.WorkerMetricsPublisher()

    async def start(self):
        await self.publisher.create_endpoint(self.place)

    def publish(self, values):
        if "load" in values:
            self.publisher.publish(**values["load"])


class ActiveLoadAndPasses(ActiveLoad):
    """Publishes as 1.6.1 does, with forward passes."""

    def __init__(self, endpoint):
        super().__init__(endpoint)
        self.passes = llm.FpmDirectPublisher(endpoint, str(endpoint.connection_id()))
        self.one = None
        self.count = 0

    async def start(self):
        await super().start()
        self.task = asyncio.create_task(self.work())

    def publish(self, values):
        super().publish(values)
        worked, self.one = self.one, values.get("pass")
        if worked and not self.one:
            print("forward passes:", self.count, flush=True)
        if self.one and not worked:
            print("at work", flush=True)

    async def work(self):
        while True:
            if self.one:
                self.passes.publish(dp_rank=0, **self.one)
                self.count += 1
            await asyncio.sleep(PASS_SECONDS)


async def generate(request):
    yield "none"


@dynamo_worker()
async def worker(runtime: DistributedRuntime):
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, runtime.shutdown)
    namespace, component, model, file = sys.argv[1:5]

    if hasattr(runtime, "namespace"):
        component = runtime.namespace(namespace).component(component)
        endpoint = component.endpoint("generate")
    else:
        endpoint = runtime.endpoint(f"{namespace}.{component}.generate")
    if hasattr(llm, "ForwardPassMetrics"):
        await component.create_service()
        worker_id, publisher = endpoint.lease_id(), Load(component)
    elif hasattr(llm, "FpmDirectPublisher"):
        kind = ActiveLoad if os.environ.get("PASSES") == "none" else ActiveLoadAndPasses
        worker_id, publisher = endpoint.connection_id(), kind(endpoint)
    else:
        worker_id, publisher = endpoint.connection_id(), ActiveLoad(component)
    await publisher.start()

    page = {"text": ""}
    endpoint.metrics.register_prometheus_expfmt_callback(lambda: page["text"])

    def publish():
        with open(file) as f:
            values = json.load(f)
        page["text"] = values.get("page", "")
        publisher.publish(values)

    loop.add_signal_handler(signal.SIGUSR1, publish)

    config = llm.ModelRuntimeConfig()
    config.total_kv_blocks = 1000
    config.max_num_seqs = 100
    kind = {"worker_type": llm.WorkerType.Aggregated} if hasattr(llm, "WorkerType") else {}
    serving = asyncio.ensure_future(endpoint.serve_endpoint(generate))
    await llm.register_llm(
        llm.ModelInput.Tokens, llm.ModelType.Chat, endpoint, model,
        model_name="tiny", kv_cache_block_size=16, runtime_config=config, **kind,
    )
    print("id:", worker_id, flush=True)
    await serving
    await asyncio.Event().wait()


uvloop.install()
asyncio.run(worker())
