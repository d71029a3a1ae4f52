"""The gRPC door over a real channel: errors, limits, token, health, reflection, drain."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from kfm.catalogue.errors import IdempotencyConflict, SessionBusy
from kfm.catalogue.methods import METHODS
from kfm.turn.v1 import turn_pb2, turn_service_pb2, turn_service_pb2_grpc
from kfm_server.doors.binding import BindRefused
from kfm_server.doors.grpc.limits import Limits

from tests.e2e.toy_door import IMAGE, toy_door

pytestmark = pytest.mark.requirement("E1")


def details(error: grpc.aio.AioRpcError) -> dict[str, object]:
    """The google.rpc details of a failed call, by their short name."""
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    kinds = {
        "ErrorInfo": error_details_pb2.ErrorInfo,
        "BadRequest": error_details_pb2.BadRequest,
        "RetryInfo": error_details_pb2.RetryInfo,
    }
    found = status_pb2.Status.FromString(raw).details
    return {
        d.type_url.rpartition(".")[2]: kinds[d.type_url.rpartition(".")[2]].FromString(d.value) for d in found
    }


def submit(text: str = "hello", key: str = "k") -> turn_service_pb2.SubmitTurnRequest:
    request = turn_service_pb2.SubmitTurnRequest(idempotency_key=key)
    request.turn.input.add().text = text
    return request


async def refused(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_a_broken_rule_names_its_field_and_its_rule() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        request = submit()
        request.turn.input.add().text = "x" * 262_145
        request.turn.labels["BAD KEY"] = "v"
        error = await refused(stub.SubmitTurn(request))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        found = details(error)
        assert found["ErrorInfo"].reason == "REASON_INVALID_ARGUMENT"
        assert found["ErrorInfo"].domain == "kfm"
        broken = {(v.field, v.reason) for v in found["BadRequest"].field_violations}
        assert broken == {
            ("turn.input[1].text", "string.max_len"),
            ('turn.labels["BAD KEY"]', "string.pattern"),
        }


async def test_bytes_that_are_no_message_are_a_typed_error() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        error = await refused(channel.unary_unary("/kfm.turn.v1.TurnService/SubmitTurn")(b"\xff\xff\xff"))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert details(error)["ErrorInfo"].reason == "REASON_MALFORMED_REQUEST"


async def test_json_parts_must_be_json() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        request = submit()
        request.turn.input.add().data_json = '{"a": NaN}'
        error = await refused(stub.SubmitTurn(request))
        violation = details(error)["BadRequest"].field_violations[0]
        assert (violation.field, violation.reason) == ("turn.input[1].data_json", "json")


async def test_an_unknown_method_is_a_typed_error() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        error = await refused(channel.unary_unary("/kfm.turn.v1.TurnService/Nope")(b""))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        assert details(error)["ErrorInfo"].reason == "REASON_UNIMPLEMENTED"


async def test_an_unforeseen_exception_is_sent_opaque_with_a_request_id() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        server.turns.fail.append(ZeroDivisionError("the secret"))
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        call = stub.GetTurn(
            turn_service_pb2.GetTurnRequest(turn_id="turn_1"), metadata=(("x-request-id", "r-1"),)
        )
        error = await refused(call)
        assert error.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in str(error)
        assert "ZeroDivision" not in str(error)
        assert details(error)["ErrorInfo"].metadata["request_id"] == "r-1"


async def test_an_error_of_the_runtime_keeps_its_reason_facts_and_retry_time() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        server.turns.fail.append(SessionBusy(metadata={"turn_id": "turn_9"}, retry_after_ms=1500))
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        error = await refused(stub.SubmitTurn(submit()))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        found = details(error)
        assert found["ErrorInfo"].metadata["turn_id"] == "turn_9"
        assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1500


async def test_the_digest_covers_all_but_the_key() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        first = await stub.SubmitTurn(submit("a", "same"))
        again = await stub.SubmitTurn(submit("a", "same"))
        assert first.turn_id == again.turn_id
        error = await refused(stub.SubmitTurn(submit("b", "same")))
        assert details(error)["ErrorInfo"].reason == IdempotencyConflict().reason


async def test_a_message_over_the_limit_is_refused_by_name() -> None:
    limits = Limits(max_message_bytes=10_000)
    async with toy_door(limits=limits) as server, grpc.aio.insecure_channel(server.grpc) as channel:
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        error = await refused(stub.SubmitTurn(submit("x" * 12_000)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(error)["ErrorInfo"].metadata["limit"] == "max_message_bytes"
        error = await refused(stub.SubmitTurn(submit("x" * 100_000)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_message_that_expands_a_thousandfold_is_refused() -> None:
    limits = Limits(max_message_bytes=100_000)
    async with toy_door(limits=limits) as server:
        async with grpc.aio.insecure_channel(server.grpc, compression=grpc.Compression.Gzip) as channel:
            stub = turn_service_pb2_grpc.TurnServiceStub(channel)
            error = await refused(stub.SubmitTurn(submit("x" * 20_000_000)))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_streams_over_the_limit_are_refused_with_a_time() -> None:
    limits = Limits(max_streams=1)
    async with toy_door(limits=limits) as server, grpc.aio.insecure_channel(server.grpc) as channel:
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        turn = await stub.SubmitTurn(submit("wait"))
        request = turn_service_pb2.WatchTurnRequest(turn_id=turn.turn_id)
        held = stub.WatchTurn(request)
        assert (await held.read()).updates[0].event.sequence == 1
        error = await refused(stub.WatchTurn(request).read())
        found = details(error)
        assert found["ErrorInfo"].reason == "REASON_TOO_MANY_STREAMS"
        assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1000
        held.cancel()
        async with asyncio.timeout(30):
            await server.door.gate.empty()
        assert (await stub.WatchTurn(request).read()).updates[0].event.sequence == 1


async def test_every_method_asks_for_the_token() -> None:
    async with toy_door(token="s3cret") as server, grpc.aio.insecure_channel(server.grpc) as channel:
        for path in METHODS:
            for metadata in ((), (("authorization", "Bearer wrong"),)):
                error = await refused(channel.unary_unary(path)(b"", metadata=metadata))
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        error = await refused(reflect(iter([ask.SerializeToString()])).read())
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        good = (("authorization", "Bearer s3cret"),)
        assert await channel.unary_unary("/kfm.admin.v1.AdminService/GetServerInfo")(b"", metadata=good)
        assert await reflect(iter([ask.SerializeToString()]), metadata=good).read()


async def test_a_bind_beyond_loopback_without_a_token_is_refused() -> None:
    with pytest.raises(BindRefused, match="KFM_TOKEN"):
        async with toy_door(address="0.0.0.0:0"):
            pass


async def test_health_is_told_by_part() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        status = health_pb2.HealthCheckResponse.ServingStatus
        for part in ("", "kfm.turn.v1.TurnService", "kfm.admin.v1.AdminService", "journal"):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=part))).status == status.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="journal"))
        assert (await watch.read()).status == status.SERVING
        await server.health.set("journal", False)
        assert (await watch.read()).status == status.NOT_SERVING
        watch.cancel()
        assert (
            await refused(stub.Check(health_pb2.HealthCheckRequest(service="x")))
        ).code().name == "NOT_FOUND"


@pytest.mark.requirement("FT16")
async def test_streams_of_health_have_places_of_their_own_and_those_of_reflection_share_the_streams() -> None:
    limits = Limits(max_streams=1, max_health_watches=2)
    async with toy_door("s3cret", limits) as server, grpc.aio.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        for watch in watches:
            await watch.read()
        error = await refused(health.Watch(health_pb2.HealthCheckRequest()).read())
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(error)["ErrorInfo"].metadata["limit"] == "max_health_watches"
        assert (await health.Check(health_pb2.HealthCheckRequest())).status

        good = (("authorization", "Bearer s3cret"),)
        ask = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        open_stream = reflect(metadata=good)
        await open_stream.write(ask)
        await open_stream.read()
        error = await refused(reflect(iter([ask]), metadata=good).read())
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(error)["ErrorInfo"].metadata["limit"] == "max_streams"

        open_stream.cancel()
        async with asyncio.timeout(30):
            await server.door.gate.empty()  # watches of health hold nothing up


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_knows_every_symbol_and_carries_comments(version: str) -> None:
    from google.protobuf import descriptor_pb2

    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        ask = reflection_pb2.ServerReflectionRequest
        symbols = [
            "kfm.turn.v1.TurnService.SubmitTurn",
            "kfm.event.v1.StepResultEvent.output_json",
            "kfm.error.v1.REASON_INTERNAL",
            "kfm.type.v1.Part.content",
            f"grpc.reflection.{version}.ServerReflection",
            "grpc.health.v1.Health",
            "google.protobuf.Any",
        ]
        questions = [ask(list_services=""), *(ask(file_containing_symbol=s) for s in symbols)]
        questions += [ask(file_by_filename="nope.proto"), ask()]
        questions.append(ask(all_extension_numbers_of_type="google.protobuf.MethodOptions"))
        answers = [a async for a in call(iter(questions))]
        names = {s.name for s in answers[0].list_services_response.service}
        assert names == {
            "kfm.turn.v1.TurnService",
            "kfm.session.v1.SessionService",
            "kfm.personality.v1.PersonalityService",
            "kfm.event.v1.EventService",
            "kfm.memory.v1.MemoryService",
            "kfm.provider.v1.ProviderService",
            "kfm.worker.v1.WorkerService",
            "kfm.admin.v1.AdminService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        for symbol, answer in zip(symbols, answers[1:], strict=False):
            assert answer.file_descriptor_response.file_descriptor_proto, symbol
        raw = answers[1].file_descriptor_response.file_descriptor_proto[0]
        file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        comments = [c.leading_comments for c in file.source_code_info.location]
        assert any("SubmitTurn hands a message in" in c for c in comments)
        assert answers[-3].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        assert answers[-2].error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert 71424 in answers[-1].all_extension_numbers_response.extension_number
    assert IMAGE


async def test_a_drain_sends_watchers_back_and_refuses_new_turns() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        turn = await stub.SubmitTurn(submit("wait"))
        watch = stub.WatchTurn(turn_service_pb2.WatchTurnRequest(turn_id=turn.turn_id))
        await watch.read()
        waiting = asyncio.ensure_future(stub.WaitTurn(turn_service_pb2.WaitTurnRequest(turn_id=turn.turn_id)))
        async with asyncio.timeout(30):
            while server.door.gate.streams < 2:
                await stub.GetTurn(turn_service_pb2.GetTurnRequest(turn_id=turn.turn_id))
        async with asyncio.timeout(30):
            await server.door.drain(5)
        last = (await watch.read()).updates[0]
        assert last.reconnect == turn_pb2.Reconnect(reason="The server is stopping.", after_sequence=1)
        assert await watch.read() is grpc.aio.EOF
        assert details(await refused(waiting))["ErrorInfo"].reason == "REASON_DRAINING"
        error = await refused(stub.SubmitTurn(submit("late", "k2")))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert details(error)["ErrorInfo"].reason == "REASON_DRAINING"
        assert (await stub.GetTurn(turn_service_pb2.GetTurnRequest(turn_id=turn.turn_id))).turn.turn_id


async def test_a_wait_ends_before_its_callers_deadline() -> None:
    async with toy_door() as server, grpc.aio.insecure_channel(server.grpc) as channel:
        stub = turn_service_pb2_grpc.TurnServiceStub(channel)
        turn = await stub.SubmitTurn(submit("wait"))
        request = turn_service_pb2.WaitTurnRequest(turn_id=turn.turn_id)
        answer = await stub.WaitTurn(request, timeout=0.5)
        assert answer.turn.state == turn_pb2.TURN_STATE_RUNNING
