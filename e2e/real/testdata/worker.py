"""A real Dynamo worker (ai-dynamo-runtime 0.2.1 or 0.5.1) that reports given values.

usage: worker.py NAMESPACE COMPONENT '{"active_slots": 3, "total_slots": 16, "waiting": 2,
    "kv_active": 40, "kv_total": 100, "usage": 0.25, "hit": 0.5}'

With 0.5.1 there may also be "spec", the arguments of llm.SpecDecodeStats. The worker serves
COMPONENT/generate and, through the runtime's own publisher, COMPONENT/load_metrics.
It prints its id when it has values to report.
"""

import asyncio
import json
import signal
import sys

import uvloop

import dynamo.llm as llm
from dynamo.runtime import DistributedRuntime, dynamo_worker


def publish(publisher, v):
    if hasattr(llm, "ForwardPassMetrics"):
        spec = llm.SpecDecodeStats(*v["spec"]) if "spec" in v else None
        publisher.publish(
            llm.ForwardPassMetrics(
                llm.WorkerStats(v["active_slots"], v["total_slots"], v["waiting"], None),
                llm.KvStats(v["kv_active"], v["kv_total"], v["usage"], v["hit"]),
                spec,
            )
        )
    else:
        publisher.publish(
            v["active_slots"], v["total_slots"], v["kv_active"], v["kv_total"],
            v["waiting"], v["usage"], v["hit"],
        )


async def generate(request):
    yield "none"


@dynamo_worker()
async def worker(runtime: DistributedRuntime):
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, runtime.shutdown)
    namespace, component, values = sys.argv[1:4]
    component = runtime.namespace(namespace).component(component)
    await component.create_service()
    endpoint = component.endpoint("generate")
    publisher = getattr(llm, "WorkerMetricsPublisher", None) or llm.KvMetricsPublisher
    publisher = publisher()
    publish(publisher, json.loads(values))
    print("worker", endpoint.lease_id(), flush=True)
    # Up to 0.2.1 create_endpoint serves until the end. Later it returns at once.
    await asyncio.gather(publisher.create_endpoint(component), endpoint.serve_endpoint(generate))
    # Neither a shutdown nor a lost lease ends an engine: it continues, and answers polls.
    await asyncio.Event().wait()


uvloop.install()
asyncio.run(worker())
