"""The door of the bus: what others publish on the broker is asked of TurnService, under the rules of every other door."""

from dataclasses import replace

from google.protobuf.message import Message
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import StepResultEvent
from kfm.turn.v1 import turn_service_pb2 as rpc
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server.canonical import clean_text
from kfm_server.context import ExecutionContext
from kfm_server.doors.grpc.drain import Drain
from kfm_server.doors.grpc.interceptor import Call, UnaryBody
from kfm_server.doors.grpc.limits import Limits
from kfm_server.doors.grpc.turn_service import Turns, TurnService
from kfm_server.doors.grpc.validation import check_text, parse
from kfm_server.doors.grpc.worker_service import result_of
from kfm_server.ids import new_id
from kfm_server.runtime.pools.hub import WorkerPools


class BusDoor:
    """Takes the requests that an event can be, and the results of steps. `ask` raises KfmError."""

    def __init__(self, turns: Turns, pools: WorkerPools) -> None:
        self._pools = pools
        service = TurnService(turns, Drain())
        self._max_bytes = Limits().max_message_bytes
        self._bodies: dict[type[Message], UnaryBody] = {
            rpc.SubmitTurnRequest: service.SubmitTurn,
            rpc.CancelTurnRequest: service.CancelTurn,
            rpc.PauseTurnRequest: service.PauseTurn,
            rpc.ResumeTurnRequest: service.ResumeTurn,
            rpc.AnswerStepRequest: service.AnswerStep,
            rpc.SettleStepRequest: service.SettleStep,
            rpc.RetryTurnRequest: service.RetryTurn,
            rpc.ForkTurnRequest: service.ForkTurn,
        }

    async def ask(self, context: ExecutionContext, request: Message) -> Message:
        """Check the request and make it; durable when it answers."""
        check_text("tenant_id", context.tenant_id)
        check_text("principal", context.principal)
        checked = parse(type(request), request.SerializeToString(), self._max_bytes)
        body = self._bodies[type(request)]
        return await body(Call(context, new_id("req"), None), checked)

    async def result(self, envelope: Envelope, event: StepResultEvent) -> None:
        """Hand on how a worker says that an attempt ended, made fit to be recorded."""
        told = pb.LeaseResult(
            status=event.status,
            output_json=event.output_json,
            error=event.error,
            run_time=event.metrics.run_time,
        )
        ref = pb.AttemptRef(
            session_id=envelope.session_id,
            turn_id=envelope.turn_id,
            step_key=event.step_key,
            attempt=envelope.attempt,
        )
        worker = clean_text(event.worker)[:128] or "bus"
        self._pools.bus_result(ref, replace(result_of(told), worker=worker))
