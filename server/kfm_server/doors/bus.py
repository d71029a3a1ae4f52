"""The door of the bus: what others publish on the broker is asked of TurnService, under the rules of every other door."""

from google.protobuf.message import Message
from kfm.turn.v1 import turn_service_pb2 as rpc

from kfm_server.context import ExecutionContext
from kfm_server.doors.grpc.drain import Drain
from kfm_server.doors.grpc.interceptor import Call, UnaryBody
from kfm_server.doors.grpc.limits import Limits
from kfm_server.doors.grpc.turn_service import Turns, TurnService
from kfm_server.doors.grpc.validation import check_text, parse
from kfm_server.ids import new_id


class BusDoor:
    """Takes the requests that an event can be. `ask` raises KfmError."""

    def __init__(self, turns: Turns) -> None:
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
