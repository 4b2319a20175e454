"""Mistakes that the type checker must report: each marked line under its rule, and nothing else."""

from attrs import frozen

from atomr_trio.actor import (
    Actor,
    ActorRef,
    ActorRestarted,
    ActorSystem,
    ChildSpec,
    Context,
    DeadLetter,
    Listing,
    Props,
    ReplySlot,
    Request,
    ServiceKey,
    StreamRequest,
    SupervisorStrategy,
    round_robin,
)


@frozen
class Length(Request[int]):
    text: str


@frozen
class Words(StreamRequest[str]):
    text: str


class NumberActor(Actor[int]):
    async def handle(self, message: int, ctx: Context[int]) -> None:
        ctx.self_ref.tell("not a number")  # error: reportArgumentType


class TextActor(Actor[Length | Words]):
    async def handle(self, message: Length | Words, ctx: Context[Length | Words]) -> object:
        return message.text


class MisfitActor(Actor[int]):
    async def handle(self, message: str, ctx: Context[int]) -> None:  # error: reportIncompatibleMethodOverride
        pass


class WronglySupervisedActor(Actor[int]):
    supervisor_strategy: str = "one_for_one"  # error: reportIncompatibleVariableOverride


NUMBERS: ServiceKey[int] = ServiceKey("numbers")


def tells(number: ActorRef[int], text: ActorRef[Length | Words]) -> None:
    number.tell("one")  # error: reportArgumentType
    number.tell(None)  # error: reportArgumentType
    text.tell(1)  # error: reportArgumentType
    text.tell("four")  # error: reportArgumentType


async def sends(number: ActorRef[int]) -> None:
    await number.send("one")  # error: reportArgumentType


async def asks(text: ActorRef[Length | Words]) -> None:
    await text.ask(Length("four"))  # error: reportCallIssue
    await text.ask("four", timeout=1.0)  # error: reportArgumentType
    await text.ask(Words("four"), timeout=1.0)  # error: reportArgumentType
    answer: str = await text.ask(Length("four"), timeout=1.0)  # error: reportAssignmentType
    print(answer)


async def streams(text: ActorRef[Length | Words]) -> None:
    text.ask_stream(Length("four"))  # error: reportArgumentType
    async with text.ask_stream(Words("two words")) as words:
        async for word in words:
            number: int = word  # error: reportAssignmentType
            print(number)


def references(number: ActorRef[int], length: ActorRef[Length]) -> None:
    text: ActorRef[str] = number  # error: reportAssignmentType
    wider: ActorRef[Length | Words] = length  # error: reportAssignmentType
    print(text, wider)


def recipes() -> None:
    wrong: Props[int] = Props(factory=TextActor)  # error: reportAssignmentType
    Props(factory=lambda: "no actor")  # error: reportArgumentType
    Props(factory=NumberActor())  # error: reportArgumentType
    Props(NumberActor)  # error: reportCallIssue
    ChildSpec(id="number", props=NumberActor)  # error: reportArgumentType
    print(wrong)


async def spawns(system: ActorSystem, ctx: Context[int]) -> None:
    await system.actor_of(NumberActor, "number")  # error: reportArgumentType
    text: ActorRef[str] = await ctx.spawn(Props(factory=NumberActor), "number")  # error: reportAssignmentType
    await ctx.spawn(ChildSpec(id="number", props=Props(factory=NumberActor)), "number")  # error: reportArgumentType
    await ctx.start(Props(factory=NumberActor))  # error: reportArgumentType
    print(text)


async def routers(number: ActorRef[int], text: ActorRef[Length]) -> None:
    router = round_robin([number])
    router.tell("one")  # error: reportArgumentType
    router.add(text)  # error: reportArgumentType
    answer: str = await round_robin([text]).ask(Length("four"), timeout=1.0)  # error: reportAssignmentType
    print(answer)


def registry(system: ActorSystem, text: ActorRef[Length]) -> None:
    system.registry.register(NUMBERS, text)  # error: reportArgumentType
    found: tuple[ActorRef[str], ...] = system.registry.find(NUMBERS)  # error: reportAssignmentType
    print(found)

    def changed(listing: Listing[str]) -> None:
        print(listing.refs)

    system.registry.subscribe(NUMBERS, changed)  # error: reportArgumentType


def events(system: ActorSystem, letters: ActorRef[DeadLetter]) -> None:
    system.events.subscribe(ActorRestarted, letters)  # error: reportArgumentType


def slots(slot: ReplySlot[int]) -> None:
    slot.resolve("one")  # error: reportArgumentType
    slot.fail("no exception")  # error: reportArgumentType


def strategies() -> None:
    SupervisorStrategy(decider="restart")  # error: reportArgumentType
