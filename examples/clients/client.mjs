// Sends to and calls the task of tasks.py, with amqplib: node client.mjs. The broker is that of AMQPWORKER_URL.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import amqp from "amqplib";

const connection = await amqp.connect(process.env.AMQPWORKER_URL ?? "amqp://localhost");
const channel = await connection.createConfirmChannel();
const returned = new Set(); // ids of messages that no queue took: the broker returns a message before it confirms it
const waiting = new Map(); // what to do with a reply, by correlation id
channel.on("return", (message) => returned.add(message.properties.messageId));
// Replies go to the channel that publishes the calls, which must consume them before it publishes.
await channel.consume("amq.rabbitmq.reply-to", (reply) => waiting.get(reply.properties.correlationId)?.(reply.content), {
  noAck: true,
});

// Return the exchange and the headers of a message that is due in this many seconds.
function route(seconds) {
  const units = Math.ceil(seconds / 0.125);
  if (units === 0) return { exchange: "amqpworker.tasks", headers: {} };
  const levels = [...Array(31).keys()].reverse().filter((bit) => units & (1 << bit));
  const names = levels.map((bit) => String(bit).padStart(2, "0"));
  const headers = Object.fromEntries(names.map((name) => [`aw-wait-${name}`, true]));
  headers["aw-eta"] = inSeconds(seconds);
  return { exchange: `amqpworker.delay.${names[0]}`, headers };
}

const inSeconds = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();

// Publish a message and return its id, once the broker has stored it.
async function send(queue, task, parameters, { delay = 0, headers = {}, ...options } = {}) {
  const { exchange, headers: waits } = route(delay);
  const messageId = randomUUID();
  const properties = { type: task, messageId, contentType: "application/json", persistent: true, mandatory: true };
  const body = Buffer.from(JSON.stringify(parameters));
  await new Promise((resolve, reject) => {
    const all = { ...properties, ...options, headers: { ...waits, ...headers } };
    channel.publish(exchange, queue, body, all, (error) => (error ? reject(error) : resolve()));
  });
  if (returned.delete(messageId)) throw new Error(`queue ${queue} does not exist`);
  return messageId;
}

// Run a task in a worker, and return what it returned.
async function call(queue, task, parameters, timeout = 30) {
  const correlationId = randomUUID(); // a new one for each call
  const reply = new Promise((resolve) => waiting.set(correlationId, resolve));
  try {
    const headers = { "aw-expires": inSeconds(timeout) };
    await send(queue, task, parameters, { correlationId, replyTo: "amq.rabbitmq.reply-to", headers });
    const content = await Promise.race([reply, sleep(timeout * 1000, null, { ref: false })]);
    if (content === null) throw new Error(`no reply in ${timeout} s; the task may have run`);
    const result = JSON.parse(content);
    if (result.status !== "done") throw new Error(`${result.reason}: ${result.error_type}: ${result.error}`);
    return result.value;
  } finally {
    waiting.delete(correlationId);
  }
}

const failure = (error) => error.message;
await send("welcomes", "shop.welcome", { user_id: 1 }).then(() => console.log("sent"));
await send("welcomes", "shop.welcome", { user_id: 2 }, { delay: 1.5 }).then(() => console.log("sent, due in 1.5 s"));
console.log(`call: ${await call("welcomes", "shop.welcome", { user_id: 3, lang: "fr" })}`);
console.log(`call: ${await call("welcomes", "shop.welcome", { user_id: -1 }).catch(failure)}`);
console.log(`send: ${await send("invoices", "shop.welcome", { user_id: 4 }).catch(failure)}`);
const replies = await Promise.all([...Array(100).keys()].map((id) => call("welcomes", "shop.welcome", { user_id: id })));
console.log(`${replies.filter((reply, id) => reply.startsWith(`user ${id} `)).length} of 100 replies are right`);
await connection.close();
