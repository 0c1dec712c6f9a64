"""The official `openai` package, unmodified, against a base URL: the stand-in provider itself, or
Envoy with Sluice in front of it."""

import json
import time
import uuid

import openai
from checks import arguments, expect, repeat, run

args = arguments(__doc__)
# A run must not find the answers of the run before it.
nonce = uuid.uuid4().hex[:8]
client = openai.OpenAI(
    base_url=f"{args.base_url}/v1", api_key=args.key, max_retries=0, timeout=30
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


def ask(text, **more):
    return {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "You answer customers of a bank."},
            {"role": "user", "content": f"[{nonce}] {text}"},
        ],
        "temperature": 0,
        **more,
    }


def text_of(stream):
    chunks = list(stream)
    expect(chunks[0].choices[0].delta.role == "assistant", chunks[0])
    finish = [c.choices[0].finish_reason for c in chunks if c.choices]
    expect(finish[-1] is not None, finish)
    expect(all(reason is None for reason in finish[:-1]), finish)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    return text, finish[-1], chunks


def chat_answers_with_text_and_usage():
    answer = client.chat.completions.create(**ask("Where is my card?"))
    expect(answer.choices[0].finish_reason == "stop", answer)
    expect(len(answer.choices[0].message.content) > 20, answer)
    usage = answer.usage
    expect(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
    expect(usage.prompt_tokens > 20, usage)


def a_stream_has_usage_only_when_asked_for():
    plain = ask("How do I close my account?", stream=True)
    text, finish, chunks = text_of(client.chat.completions.create(**plain))
    expect(finish == "stop" and len(text) > 20, (finish, text))
    expect(all(chunk.usage is None for chunk in chunks), chunks[-1])
    expect(all(chunk.choices for chunk in chunks), chunks[-1])
    asked = ask(
        "How do I close my second account?",
        stream=True,
        stream_options={"include_usage": True},
    )
    text, finish, chunks = text_of(client.chat.completions.create(**asked))
    expect(chunks[-1].choices == [], chunks[-1])
    expect(chunks[-1].usage.completion_tokens > 0, chunks[-1])
    expect(all(chunk.usage is None for chunk in chunks[:-1]), chunks[0])


def a_repeat_says_the_same_streamed_or_not():
    request = ask("Why was my transfer declined?")
    first = client.chat.completions.create(**request)
    second = client.chat.completions.create(**request)
    if args.cached:
        first, second = repeat(second, lambda: client.chat.completions.create(**request))
    expect(
        second.choices[0].message.content == first.choices[0].message.content,
        (first, second),
    )
    text, finish, chunks = text_of(
        client.chat.completions.create(**request, stream=True)
    )
    expect(text == first.choices[0].message.content, (first, text))
    expect(finish == first.choices[0].finish_reason, finish)
    if args.cached:
        # Ids are unique to a generation: an equal one proves that nothing was generated again.
        expect(second.id == first.id, (first.id, second.id))
        expect(chunks[0].id == first.id, (first.id, chunks[0].id))
        raw = client.chat.completions.with_raw_response.create(**request)
        expect(raw.headers.get("x-sluice-cache") == "hit", dict(raw.headers))
    else:
        expect(second.id != first.id, first.id)


def a_streamed_first_answer_serves_the_second_whole():
    request = ask("Which documents do I need for a mortgage?")

    class Streamed:
        def __init__(self):
            stream = client.chat.completions.create(**request, stream=True)
            self.text, _, chunks = text_of(stream)
            self.id = chunks[0].id

    streamed = Streamed()
    if args.cached:
        _, streamed = repeat(streamed, Streamed)
    whole = client.chat.completions.create(**request)
    expect(whole.choices[0].message.content == streamed.text, (streamed.text, whole))
    expect(whole.usage.completion_tokens > 0, whole)
    if args.cached:
        expect(whole.id == streamed.id, (whole.id, streamed.id))


def the_async_client_runs_requests_side_by_side():
    import asyncio

    async def many():
        async with openai.AsyncOpenAI(
            base_url=f"{args.base_url}/v1", api_key=args.key, max_retries=0, timeout=30
        ) as side:
            calls = [
                side.chat.completions.create(**ask(f"Is branch {n} open today?"))
                for n in range(8)
            ]
            return await asyncio.gather(*calls)

    answers = asyncio.run(many())
    expect(len({answer.id for answer in answers}) == 8, answers)


def a_tool_is_called_and_its_result_used():
    request = ask("What is the weather in Lisbon?", tools=[WEATHER])
    request["messages"][1]["content"] += " Use the tool."
    answer = client.chat.completions.create(**request)
    expect(answer.choices[0].finish_reason == "tool_calls", answer)
    call = answer.choices[0].message.tool_calls[0]
    expect(call.function.name == "get_weather", call)
    arguments_ = json.loads(call.function.arguments)
    expect(set(arguments_) == {"city", "unit"}, arguments_)
    expect(arguments_["unit"] in ("celsius", "fahrenheit"), arguments_)
    request["messages"] += [
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees, sunny"},
    ]
    final = client.chat.completions.create(**request)
    expect("21 degrees, sunny" in final.choices[0].message.content, final)


def a_streamed_tool_call_adds_up_to_the_same_arguments():
    request = ask("And the weather in Porto?", tools=[WEATHER])
    whole = client.chat.completions.create(**request)
    name, text, finish = None, "", None
    for chunk in client.chat.completions.create(**request, stream=True):
        if not chunk.choices:
            continue
        finish = chunk.choices[0].finish_reason or finish
        for call in chunk.choices[0].delta.tool_calls or []:
            name = call.function.name or name
            text += call.function.arguments or ""
    expect(finish == "tool_calls", finish)
    expect(name == "get_weather", name)
    whole_call = whole.choices[0].message.tool_calls[0]
    expect(
        json.loads(text) == json.loads(whole_call.function.arguments), (text, whole)
    )


def json_schemas_are_followed():
    schema = {
        "type": "object",
        "properties": {
            "invoice": {"type": "string"},
            "total": {"type": "number"},
            "paid": {"type": "boolean"},
        },
        "required": ["invoice", "total", "paid"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        **ask(
            "Extract the invoice: INV-7, 12.50 euros, open.",
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "invoice", "strict": True, "schema": schema},
            },
        )
    )
    value = json.loads(answer.choices[0].message.content)
    expect(set(value) == {"invoice", "total", "paid"}, value)


def a_limit_cuts_the_answer():
    answer = client.chat.completions.create(
        **ask("Explain compound interest at length.", max_tokens=7)
    )
    expect(answer.choices[0].finish_reason == "length", answer)
    expect(answer.usage.completion_tokens == 7, answer.usage)


def several_choices_are_told_apart():
    answer = client.chat.completions.create(**ask("Suggest a savings plan.", n=3))
    expect([choice.index for choice in answer.choices] == [0, 1, 2], answer)


def responses_answer_whole_and_streamed_alike():
    request = {
        "model": "gpt-4o",
        "instructions": "You answer customers of a bank.",
        "input": f"[{nonce}] Explain what an IBAN is.",
        "temperature": 0,
    }
    whole = client.responses.create(**request)
    if args.cached:
        _, whole = repeat(whole, lambda: client.responses.create(**request))
    expect(whole.status == "completed", whole)
    expect(len(whole.output_text) > 20, whole)
    expect(whole.usage.output_tokens > 0, whole)
    text, last, kinds = "", None, []
    for event in client.responses.create(**request, stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
        last = event
    expect(kinds[0] == "response.created", kinds)
    expect(last.type == "response.completed", last)
    expect(text == whole.output_text == last.response.output_text, (text, whole))
    expect(last.response.usage.output_tokens == whole.usage.output_tokens, last)
    if args.cached:
        expect(last.response.id == whole.id, (last, whole))
    with client.responses.stream(**request) as stream:
        expect(stream.get_final_response().output_text == text, text)


def responses_call_tools():
    tool = {
        "type": "function",
        "name": "lookup_order",
        "parameters": {
            "type": "object",
            "properties": {"order_id": {"type": "integer"}},
            "required": ["order_id"],
        },
    }
    question = {"role": "user", "content": f"[{nonce}] Look up order 17, please."}
    first = client.responses.create(model="gpt-4o", input=[question], tools=[tool])
    call = first.output[0]
    expect(call.type == "function_call" and call.name == "lookup_order", first)
    expect(isinstance(json.loads(call.arguments)["order_id"], int), call)
    second = client.responses.create(
        model="gpt-4o",
        tools=[tool],
        input=[
            question,
            call.model_dump(exclude_none=True),
            {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": "shipped on Monday",
            },
        ],
    )
    expect("shipped on Monday" in second.output_text, second)


def embeddings_come_as_floats():
    texts = [f"[{nonce}] lost card", "card was stolen", "interest rates"]
    answer = client.embeddings.create(model="text-embedding-3-small", input=texts)
    expect(len(answer.data) == 3, answer)
    expect(len(answer.data[0].embedding) == 1536, len(answer.data[0].embedding))
    expect(answer.usage.prompt_tokens == answer.usage.total_tokens > 0, answer.usage)
    short = client.embeddings.create(
        model="text-embedding-3-small",
        input=texts[0],
        dimensions=64,
        encoding_format="float",
    )
    expect(len(short.data[0].embedding) == 64, short)


def known_inputs_of_a_batch_stay_what_they_were():
    def embed(texts, **more):
        raw = client.embeddings.with_raw_response.create(
            model="text-embedding-3-small", input=texts, dimensions=64, **more
        )
        vectors = [item.embedding for item in raw.parse().data]
        return vectors, raw.headers.get("x-sluice-cache")

    def same(one, other):
        # The client asks for base64 of f32 unless it is told otherwise.
        return all(abs(a - b) <= 1e-7 for a, b in zip(one, other, strict=True))

    known = [f"[{nonce}] overdraft", f"[{nonce}] mortgage"]
    (overdraft, mortgage), _ = embed(known)
    deadline = time.monotonic() + 20
    while args.cached and time.monotonic() < deadline:
        # Vectors are stored in the background.
        _, result = embed(known)
        if result == "hit":
            break
        time.sleep(0.05)
    mixed, result = embed([f"[{nonce}] insurance", known[1]])
    expect(same(mixed[1], mortgage), (mixed[1], mortgage))
    expect(not same(mixed[0], mortgage), mixed[0])
    if args.cached:
        expect(result == "partial", result)
    numbers, result = embed(known, encoding_format="float")
    expect(same(numbers[0], overdraft) and same(numbers[1], mortgage), numbers)
    if args.cached:
        expect(result == "hit", result)


def legacy_completions_work():
    request = {
        "model": "gpt-3.5-turbo-instruct",
        "prompt": f"[{nonce}] Write a slogan for a savings bank",
        "max_tokens": 40,
        "temperature": 0,
    }
    whole = client.completions.create(**request)
    expect(whole.usage.completion_tokens <= 40, whole.usage)
    streamed = "".join(
        chunk.choices[0].text
        for chunk in client.completions.create(**request, stream=True)
        if chunk.choices
    )
    expect(streamed == whole.choices[0].text, (streamed, whole))


def models_are_listed():
    names = {model.id for model in client.models.list()}
    expect({"gpt-4o", "gpt-4o-mini"} <= names, names)


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def errors_become_the_packages_exceptions():
    def create(**more):
        return client.chat.completions.create(**(ask("Hello?") | more))

    error = raises(openai.NotFoundError, lambda: create(model="gpt-none"))
    expect(error.code == "model_not_found", error)
    raises(openai.BadRequestError, lambda: create(messages=[]))
    other = client.with_options(api_key="sk-invalid-1")
    raises(
        openai.AuthenticationError,
        lambda: other.chat.completions.create(**ask("Is this key good?")),
    )
    fault = {"x-provider-fault": json.dumps({"status": 429})}
    error = raises(
        openai.RateLimitError,
        lambda: create(extra_headers=fault, messages=ask("Too fast?")["messages"]),
    )
    expect(error.response.headers.get("retry-after") == "2", error.response.headers)
    fault = {"x-provider-fault": json.dumps({"status": 500})}
    raises(
        openai.InternalServerError,
        lambda: create(extra_headers=fault, messages=ask("Broken?")["messages"]),
    )


def a_broken_stream_is_an_error_and_no_answer():
    fault = {"x-provider-fault": json.dumps({"reset_after_chunks": 4})}
    request = ask("Tell me about fixed deposits.", stream=True)
    try:
        stream = client.chat.completions.create(**request, extra_headers=fault)
        text, finish, _ = text_of(stream)
    except Exception as error:  # httpx.RemoteProtocolError; the package passes it on
        expect("AssertionError" not in type(error).__name__, error)
        return
    raise AssertionError(f"the broken stream ended in order: {finish!r} {text!r}")


run([check for name, check in list(globals().items()) if callable(check)
     and getattr(check, "__module__", "") == "__main__"
     and name not in ("ask", "text_of", "raises")])
