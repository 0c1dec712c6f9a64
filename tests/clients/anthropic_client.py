"""The official `anthropic` package, unmodified, against a base URL: the stand-in provider itself,
or Envoy with Sluice in front of it."""

import json
import uuid
import warnings

import anthropic
from checks import arguments, expect, repeat, run

args = arguments(__doc__)
# The model's age is no concern of a stand-in.
warnings.simplefilter("ignore", DeprecationWarning)
# A run must not find the answers of the run before it.
nonce = uuid.uuid4().hex[:8]
client = anthropic.Anthropic(
    base_url=args.base_url, api_key=args.key, max_retries=0, timeout=30
)

STOCK = {
    "name": "get_stock",
    "description": "How many of an article are in stock",
    "input_schema": {
        "type": "object",
        "properties": {
            "article": {"type": "string"},
            "store": {"type": "string", "enum": ["north", "south"]},
        },
        "required": ["article", "store"],
    },
}


def ask(text, **more):
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 600,
        "system": "You help the staff of a hardware shop.",
        "messages": [{"role": "user", "content": f"[{nonce}] {text}"}],
        # Newer packages have no argument for it, the API still has.
        "extra_body": {"temperature": 0},
        **more,
    }


def messages_answer_with_text_and_usage():
    answer = client.messages.create(**ask("Which screws hold in plaster?"))
    expect(answer.stop_reason == "end_turn", answer)
    expect(answer.content[0].type == "text", answer)
    expect(len(answer.content[0].text) > 20, answer)
    expect(answer.usage.input_tokens > 20 < answer.usage.output_tokens, answer.usage)


def streamed_events_come_in_their_order():
    kinds, usage = [], None
    for event in client.messages.create(**ask("How do I bleed a radiator?"), stream=True):
        kinds.append(event.type)
        if event.type == "message_delta":
            usage = event.usage
    expect(kinds[:2] == ["message_start", "content_block_start"], kinds)
    expect(
        kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"], kinds
    )
    expect(usage.output_tokens > 1, usage)


def a_repeat_says_the_same_streamed_or_not():
    request = ask("Can I paint over silicone?")
    first = client.messages.create(**request)
    second = client.messages.create(**request)
    if args.cached:
        first, second = repeat(second, lambda: client.messages.create(**request))
    expect(second.content == first.content, (first, second))
    with client.messages.stream(**request) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    expect(text == first.content[0].text, (text, first))
    expect(final.usage.output_tokens == first.usage.output_tokens, (final, first))
    expect(final.usage.input_tokens == first.usage.input_tokens, (final, first))
    if args.cached:
        expect(second.id == first.id == final.id, (first.id, second.id, final.id))
        raw = client.messages.with_raw_response.create(**request)
        expect(raw.headers.get("x-sluice-cache") == "hit", dict(raw.headers))
    else:
        expect(second.id != first.id, first.id)


def a_streamed_first_answer_serves_the_second_whole():
    request = ask("Which drill bit for tiles?")

    def streamed():
        with client.messages.stream(**request) as stream:
            return stream.get_final_message()

    final = streamed()
    if args.cached:
        _, final = repeat(final, streamed)
    whole = client.messages.create(**request)
    expect(whole.content[0].text == final.content[0].text, (whole, final))
    if args.cached:
        expect(whole.id == final.id, (whole.id, final.id))


def a_tool_is_called_and_its_result_used():
    request = ask("Please check the stock of hinges in the south store.", tools=[STOCK])
    answer = client.messages.create(**request)
    expect(answer.stop_reason == "tool_use", answer)
    call = answer.content[0]
    expect(call.name == "get_stock", call)
    expect(set(call.input) == {"article", "store"}, call)
    request["messages"] += [
        {"role": "assistant", "content": [call.model_dump(exclude_none=True)]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": call.id,
                    "content": "41 pieces on shelf 9",
                }
            ],
        },
    ]
    final = client.messages.create(**request)
    expect("41 pieces on shelf 9" in final.content[0].text, final)


def a_streamed_tool_call_adds_up_to_the_same_input():
    request = ask("And the stock of brackets in the north store?", tools=[STOCK])
    whole = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        final = stream.get_final_message()
    expect(final.stop_reason == "tool_use", final)
    expect(final.content[0].input == whole.content[0].input, (final, whole))


def a_limit_cuts_the_answer():
    answer = client.messages.create(**ask("Explain how to lay a floor.", max_tokens=9))
    expect(answer.stop_reason == "max_tokens", answer)
    expect(answer.usage.output_tokens <= 9, answer.usage)


def a_marked_prompt_is_cached_by_the_provider():
    manual = f"[{nonce}] " + "Wear gloves and goggles when cutting metal. " * 200
    marked = [{"type": "text", "text": manual, "cache_control": {"type": "ephemeral"}}]
    first = client.messages.create(**ask("What do I wear?", system=marked))
    second = client.messages.create(**ask("And when grinding?", system=marked))
    expect(first.usage.cache_creation_input_tokens >= 1024, first.usage)
    expect(
        second.usage.cache_read_input_tokens
        == first.usage.cache_creation_input_tokens,
        (first.usage, second.usage),
    )


def tokens_are_counted_as_they_are_billed():
    request = ask("How heavy is a bag of cement?")
    counted = client.messages.count_tokens(
        model=request["model"], system=request["system"], messages=request["messages"]
    )
    billed = client.messages.create(**request)
    expect(counted.input_tokens == billed.usage.input_tokens, (counted, billed.usage))


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def errors_become_the_packages_exceptions():
    def create(text, **more):
        return client.messages.create(**(ask(text) | more))

    raises(anthropic.NotFoundError, lambda: create("Hello?", model="claude-none"))
    raises(anthropic.BadRequestError, lambda: create("Hello?", messages=[]))
    other = client.with_options(api_key="sk-invalid-1")
    raises(
        anthropic.AuthenticationError, lambda: other.messages.create(**ask("Good key?"))
    )
    fault = {"x-provider-fault": json.dumps({"status": 429})}
    error = raises(
        anthropic.RateLimitError, lambda: create("Too fast?", extra_headers=fault)
    )
    expect(error.response.headers.get("retry-after") == "2", error.response.headers)
    expect(error.body["error"]["type"] == "rate_limit_error", error.body)
    fault = {"x-provider-fault": json.dumps({"status": 529})}
    raises(
        anthropic.InternalServerError, lambda: create("Broken?", extra_headers=fault)
    )


run([check for name, check in list(globals().items()) if callable(check)
     and getattr(check, "__module__", "") == "__main__"
     and name not in ("ask", "raises")])
