// Vercel's AI SDK: it runs the tool itself and goes on with the result, over each protocol.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { readFileSync } from "node:fs";
import { stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, name, protocol] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const apiKey = "unused";
const models = {
  chat: () => createOpenAICompatible({ name: "mlxd", baseURL, apiKey })(name),
  responses: () => createOpenAI({ baseURL, apiKey }).responses(name),
  messages: () => createAnthropic({ baseURL, apiKey })(name),
};
const calls = [];
const weather = tool({
  description: "The weather in a city",
  inputSchema: z.object({ city: z.enum(["Tokyo", "Paris", "Oslo"]) }),
  execute: async (input) => {
    calls.push(["get_weather", input]);
    return "sunny, 21 degrees";
  },
});
const stream = streamText({
  model: models[protocol](),
  prompt: "What is the weather in Tokyo?",
  tools: { get_weather: weather },
  maxOutputTokens: 120,
  maxRetries: 0,
  stopWhen: stepCountIs(2),
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  onError: ({ error }) => {
    console.error(error);
    process.exit(1);
  },
});
const pieces = [];
for await (const piece of stream.textStream) pieces.push(piece);
const { version } = JSON.parse(readFileSync("node_modules/ai/package.json", "utf8"));
console.log(JSON.stringify({ client: "ai", version, calls, pieces }));
