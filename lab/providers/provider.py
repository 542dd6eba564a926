"""The provider protocol (pulumi/provider.proto) over kinds and the table of decisions.

Secrets are the engine's business: as this says that it takes none, they come as plain values, and the engine marks
outputs of the same names again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.empty_pb2 import Empty
from google.rpc import status_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from lab.engine import plugins
from lab.providers import decisions
from lab.providers.decisions import Decision
from lab.providers.kinds import Connected, Kind, Made, ProviderError
from lab.providers.values import UNKNOWN, Properties, is_unknown, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PropertyDiff = provider_pb2.PropertyDiff


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """A provider plugin.

    Args:
        name: as in types and configuration keys.
        connect: makes the kinds from the configuration; raises ProviderError where it will not.
        errors: what API clients raise; the text of such an error is shown to the person.
    """

    def __init__(
        self, name: str, connect: Callable[[Mapping[str, str]], Connected], errors: tuple[type[Exception], ...]
    ) -> None:
        self._name = name
        self._connect = connect
        self._errors: tuple[type[Exception], ...] = (*errors, ProviderError)
        self._connected: Connected | None = None

    def Handshake(  # noqa: N802 (the protocol's name, as all below)
        self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ProviderHandshakeResponse:
        """Take neither secrets nor resources as such."""
        del request, context
        return provider_pb2.ProviderHandshakeResponse()

    def Attach(self, request: plugin_pb2.PluginAttach, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        """Serve an engine that did not start this process."""
        del request, context
        return Empty()

    def GetPluginInfo(self, request: Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:  # noqa: N802
        """Return the version that the SDK wants: the engine compares them."""
        del request, context
        return plugin_pb2.PluginInfo(version=plugins.version(self._name))

    def CheckConfig(  # noqa: N802
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        """Take the configuration as it is; `Configure` judges it."""
        del context
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:  # noqa: N802
        """Say that nothing changed: a new token replaces nothing."""
        del request, context
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(  # noqa: N802
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        """Connect to the API that the configuration names."""
        prefix = f"{self._name}:config:"
        try:
            self._connected = self._connect({k.removeprefix(prefix): v for k, v in request.variables.items()})
        except self._errors as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Cancel(self, request: Empty, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        """Give up what waits for the API."""
        del request, context
        if self._connected:
            self._connected.cancel()
        return Empty()

    def Invoke(self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext) -> provider_pb2.InvokeResponse:  # noqa: N802
        """Call a function: there are none, because the kit needs none."""
        self._fail(context, f"{request.tok}: the lab's stand-in does not have it")

    def Check(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:  # noqa: N802
        """Refuse properties that are missing, unknown, or out of the stand-in's reach."""
        rows = {row.property: row for row in decisions.TABLE[self._type(request.urn, context)]}
        news = unpack(request.news)
        failures = {name: "there is no such property" for name in news if name not in rows}
        failures |= {name: "missing" for name, row in rows.items() if row.required and news.get(name) is None}
        refused = [name for name, row in rows.items() if row.decision is Decision.REFUSE and news.get(name) is not None]
        failures |= dict.fromkeys(refused, f"the lab's stand-in for {self._name} does not have it")
        return provider_pb2.CheckResponse(
            inputs=request.news,
            failures=[provider_pb2.CheckFailure(property=name, reason=why) for name, why in failures.items()],
        )

    def Diff(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:  # noqa: N802
        """Say what an update would change, by the table."""
        kind = self._kind(request.urn, context)
        olds, news = unpack(request.old_inputs), unpack(request.news)
        self._check(kind, news, context)
        rows = decisions.changes(_type(request.urn), olds, news, _names(request.ignoreChanges))
        replaces = [row.property for row in rows if row.decision is Decision.REPLACE]
        if kind.must_be_replaced(unpack(request.olds), news):
            replaces.append("id")
        some = bool(rows or replaces)
        states = provider_pb2.DiffResponse
        return provider_pb2.DiffResponse(
            changes=states.DIFF_SOME if some else states.DIFF_NONE,
            diffs=[row.property for row in rows],
            replaces=replaces,
            # The bridge does so where a name that the program chose is kept, as two objects cannot have it.
            deleteBeforeReplace=bool(replaces) and "name" in news and news["name"] == olds.get("name"),
            detailedDiff={row.property: _detail(row, olds, news) for row in rows},
            hasDetailedDiff=True,
        )

    def Create(self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:  # noqa: N802
        """Make an object. One that fails after the API has it is kept in the state, as the real plugins do."""
        kind, inputs = self._kind(request.urn, context), unpack(request.properties)
        self._check(kind, inputs, context)
        if request.preview:
            return provider_pb2.CreateResponse(properties=pack({**dict.fromkeys(kind.computed, UNKNOWN), **inputs}))
        made = Made()
        try:
            kind.create(inputs, made)
            state = self._state(kind, made, inputs)
        except self._errors as error:
            if detail := self._partial(kind, made, request, error):
                context.set_trailing_metadata((("grpc-status-details-bin", detail),))
            self._fail(context, str(error))
        return provider_pb2.CreateResponse(id=made.id or "", properties=pack(state))

    def Read(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:  # noqa: N802
        """Return what is there: for a refresh, or, where there are no inputs yet, for an import."""
        kind, inputs = self._kind(request.urn, context), unpack(request.inputs)
        try:
            state = kind.read(request.id, unpack(request.properties))
        except self._errors as error:
            self._fail(context, str(error))
        if state is None:
            return provider_pb2.ReadResponse()
        seen = _observed(_type(request.urn), inputs, state) if inputs else _inputs(_type(request.urn), state)
        return provider_pb2.ReadResponse(id=request.id, properties=pack(state), inputs=pack(seen))

    def Update(self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:  # noqa: N802
        """Bring an object to its new inputs."""
        kind, news = self._kind(request.urn, context), unpack(request.news)
        olds, state = unpack(request.old_inputs), unpack(request.olds)
        self._check(kind, news, context)
        rows = decisions.changes(_type(request.urn), olds, news, _names(request.ignoreChanges))
        if request.preview:
            return provider_pb2.UpdateResponse(properties=pack({**state, **news}))
        sent = {row.property: news.get(row.property, row.default) for row in rows if row.decision is Decision.UPDATE}
        try:
            kind.update(request.id, sent, news)
            found = kind.read(request.id, {**state, **news})
        except self._errors as error:
            self._fail(context, str(error))
        if found is None:
            self._fail(context, f"{request.id} is gone; run `pulumi refresh`, and then `pulumi up`")
        return provider_pb2.UpdateResponse(properties=pack(found))

    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        """Delete an object."""
        try:
            self._kind(request.urn, context).delete(request.id, unpack(request.properties))
        except self._errors as error:
            self._fail(context, str(error))
        return Empty()

    def _api(self, context: grpc.ServicerContext) -> Connected:
        if self._connected is None:
            self._fail(context, f"{self._name}: not configured yet")
        return self._connected

    def _kind(self, urn: str, context: grpc.ServicerContext) -> Kind:
        return self._api(context).kinds[self._type(urn, context)]

    def _type(self, urn: str, context: grpc.ServicerContext) -> str:
        if _type(urn) not in decisions.TABLE:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{_type(urn)}: the lab's stand-in does not have it")
        return _type(urn)

    def _check(self, kind: Kind, inputs: Properties, context: grpc.ServicerContext) -> None:
        if is_unknown(inputs):
            return
        try:
            kind.check(inputs)
        except self._errors as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _state(self, kind: Kind, made: Made, inputs: Properties) -> Properties:
        state = kind.read(made.id or "", {**inputs, **made.outputs})
        if state is None:
            raise ProviderError(f"{made.id} was made and is gone already")
        return state

    def _fail(self, context: grpc.ServicerContext, message: str) -> NoReturn:
        context.abort(grpc.StatusCode.UNKNOWN, message)
        raise AssertionError  # abort has raised; this is for the type checker

    def _partial(self, kind: Kind, made: Made, request: provider_pb2.CreateRequest, error: Exception) -> bytes:
        """Return the status that tells the engine of an object that is there but not whole; nothing if none is."""
        inputs = unpack(request.properties)
        try:
            state = kind.read(made.id, {**inputs, **made.outputs}) if made.id else None
        except self._errors:
            state = {**inputs, **made.outputs}
        if state is None:
            return b""
        failed = provider_pb2.ErrorResourceInitFailed(
            id=made.id or "",
            properties=pack(state),
            inputs=pack(_observed(_type(request.urn), inputs, state)),
            reasons=[str(error)],
        )
        detail = any_pb2.Any()
        detail.Pack(failed)
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error), details=[detail])
        serialized: bytes = status.SerializeToString()
        return serialized


def _type(urn: str) -> str:
    """Return the type in a URN: urn:pulumi:STACK::PROJECT::PARENT$TYPE::NAME."""
    return urn.split("::")[2].rpartition("$")[2]


def _names(paths: Any) -> frozenset[str]:
    return frozenset(path.split(".")[0].split("[")[0] for path in paths)


def _detail(row: decisions.Row, olds: Properties, news: Properties) -> provider_pb2.PropertyDiff:
    what = "ADD" if row.property not in olds else "UPDATE" if row.property in news else "DELETE"
    replace = "_REPLACE" if row.decision is Decision.REPLACE else ""
    return _PropertyDiff(kind=_PropertyDiff.Kind.Value(f"{what}{replace}"), inputDiff=True)


def _observed(type_: str, inputs: Properties, state: Properties) -> Properties:
    """Return the inputs as what is there shows them: the program's own where nothing is different."""
    drifted = {
        row.property: state[row.property] for row in decisions.TABLE[type_] if decisions.drifted(row, inputs, state)
    }
    return {**inputs, **drifted}


def _inputs(type_: str, state: Properties) -> Properties:
    """Return what a program would have to say to have this object, without what goes without saying."""
    rows = decisions.TABLE[type_]
    return {
        row.property: state[row.property] for row in rows if state.get(row.property) not in (None, [], {}, row.default)
    }
