// A conversation by OpenAI's agents SDK for JavaScript. It tells what happens, in lines of JSON.
// node agents.mjs URL SCENARIO PCM…: each file, mono s16le at 24 kHz, is said in real time once the last was answered,
// or in the scenario "interrupt" once the answer sounds.
import { readFileSync } from 'node:fs';
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from '@openai/agents/realtime';
import { z } from 'zod';

const [url, scenario, ...files] = process.argv.slice(2);
const BYTES_PER_SECOND = 24_000 * 2;
const tell = (kind, fields = {}) => process.stdout.write(`${JSON.stringify({ kind, ...fields })}\n`);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const weather = tool({
  name: 'weather',
  description: 'Tells the weather.',
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    tell('called', { city });
    return `rain in ${city}`;
  },
});
const agent = new RealtimeAgent({
  name: 'Assistant',
  instructions: scenario === 'interrupt' ? 'Tell a long story.' : 'Be brief.',
  tools: scenario === 'function' ? [weather] : [],
});
const transport = new OpenAIRealtimeWebSocket({ url, useInsecureApiKey: true });
const input = { transcription: { model: 'whisper-1' }, turnDetection: { type: 'server_vad', silenceDurationMs: 500 } };
const session = new RealtimeSession(agent, { transport, model: 'gpt-realtime', config: { audio: { input } } });

let answered = 0, sounding = 0;
session.on('audio', (event) => {
  sounding += event.data.byteLength;
  tell('audio', { bytes: event.data.byteLength });
});
session.on('audio_interrupted', () => tell('interrupted'));
session.on('error', ({ error }) => tell('error', { error: JSON.stringify(error) ?? String(error) }));
session.on('agent_end', (_context, _agent, output) => {
  answered += 1;
  tell('answer', { text: output });
});
session.on('transport_event', (event) => {
  if (event.type.endsWith('transcription.completed')) tell('heard', { text: event.transcript });
  if (event.type === 'response.done') tell('done', { status: event.response.status });
  if (event.type === 'conversation.item.truncated') tell('truncated', { milliseconds: event.audio_end_ms });
});

const say = async (file) => {
  const pcm = readFileSync(file);
  for (let at = 0; at < pcm.length; at += BYTES_PER_SECOND / 50) {
    session.sendAudio(new Uint8Array(pcm.subarray(at, at + BYTES_PER_SECOND / 50)).buffer);
    await pause(20);
  }
};

await session.connect({ apiKey: 'none' });
tell('connected');
for (const [index, file] of files.entries()) {
  const before = answered;
  sounding = 0;
  await say(file);
  while (answered === before && !(scenario === 'interrupt' && index + 1 < files.length && sounding)) await pause(20);
}
session.close();
process.exit(0);
