// A worker in Node: claims workflows of a queue, works on them, and says on NATS that it lives.
//
//     npm install && DATABASE_URL=postgresql://127.0.0.1/flow node worker.mjs NAME
//
// It shows what a worker may say and hear: docs/workers.md has the contract. It does not know by itself when it is cut
// off: it stops when it hears that it was given up, and its statements keep what it writes later from doing harm.
// The beats share the event loop with the work, so work that blocks it for longer than the ttl belongs into a worker
// thread.
import { connect } from "@nats-io/transport-node";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const name = process.argv[2];
if (!name) {
  console.error("usage: node worker.mjs NAME");
  process.exit(2);
}
const { NATS_URL = "nats://127.0.0.1:4222", DATABASE_URL, QUEUE = "default", WORK_SECONDS = "1" } = process.env;
const ttl = Number(process.env.TTL ?? 10);
const interval = ttl / 5;
// How long the first claim waits for the answer to the hello. Without a service it begins all the same.
const HELLO_SECONDS = 3;
const IDLE_SECONDS = 0.5;

const CLAIM = `
  UPDATE workflow_execution
  SET status = 'RUNNING', worker_id = $1, version = version + 1, updated_at = now()
  WHERE id = (
      SELECT id FROM workflow_execution
      WHERE status = 'PENDING' AND queue = $2 ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
  )
  RETURNING id, version`;
// Only what is still its own, in the version that the claim returned: another may have it by now.
const FINISH = `
  UPDATE workflow_execution
  SET status = 'COMPLETED', version = version + 1, updated_at = now()
  WHERE id = $1 AND status = 'RUNNING' AND worker_id = $2 AND version = $3`;
const GIVE_BACK = `
  UPDATE workflow_execution
  SET status = 'PENDING', worker_id = NULL, version = version + 1, updated_at = now()
  WHERE id = $1 AND status = 'RUNNING' AND worker_id = $2 AND version = $3`;

/** What says on NATS that this process lives. */
class Heart {
  // Tells this process from others of the name, and when it began: by a clock that nobody sets.
  #incarnation = randomUUID();
  #uptime = () => performance.now() / 1000;
  #seq = 0;
  #connected = true;
  #leaving = false;
  #timer;

  /** The fencing token of this life, once the service has told it: hand it to whatever the work touches outside. */
  epoch = null;
  /** The ids of all work that it holds, and how much it has got done. */
  held = new Set();
  progress = 0;
  /** Called when the work of this life was given away. */
  onSuperseded = () => {};

  static async start() {
    const heart = new Heart();
    heart.nats = await connect({
      servers: NATS_URL.split(","),
      // By it, and nothing else, a lost connection is told to be this worker's.
      name: `liveness worker ${name}`,
      // Where answers come, so that a server's permissions can keep them from other workers (docs/nats.md).
      inboxPrefix: `_INBOX.${name}`,
      // For ever: NATS may be away for longer than any number of attempts.
      waitOnFirstConnect: true,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 500,
      ignoreAuthErrorAbort: true,
      // A connection that is dead without saying so is found in two of these.
      pingInterval: interval * 1000,
    });
    heart.#listen("probe", (message) => heart.#answer(message));
    heart.#listen("superseded", (message) => heart.#hear(message));
    heart.#follow();
    heart.#timer = setInterval(() => heart.#beat(), interval * 1000);
    heart.#beat();
    // Where nobody answers it begins all the same, and asks again meanwhile.
    if (!(await heart.#greet())) heart.#greetAgain();
    return heart;
  }

  async stop() {
    // The beats end first: one behind the goodbye would begin a new life.
    this.#leaving = true;
    clearInterval(this.#timer);
    if (this.#connected) {
      const [incarnation, uptime] = [this.#incarnation, this.#uptime()];
      this.nats.publish(`liveness.goodbye.${name}`, JSON.stringify({ incarnation, uptime }));
      await Promise.race([this.nats.flush(), sleep(1000)]);
    }
    await this.nats.close();
  }

  #listen(verb, take) {
    const subject = `liveness.${verb}.${name}`;
    this.nats.subscribe(subject, {
      callback: (error, message) => (error ? console.error(`${subject}: ${error.message}`) : take(message)),
    });
  }

  #beat() {
    // Not while the connection is lost: what is kept for later says nothing of then.
    if (this.#connected && !this.#leaving) this.nats.publish(`liveness.heartbeat.${name}`, this.#state());
  }

  #state() {
    const [incarnation, seq, uptime, via] = [this.#incarnation, ++this.#seq, this.#uptime(), this.nats.info?.server_id];
    const [running, progress] = [[...this.held], this.progress];
    return JSON.stringify({ incarnation, seq, ttl, interval, uptime, probe: true, via, running, progress });
  }

  #answer(message) {
    // Only to an inbox, and not behind the goodbye.
    if (!this.#leaving && message.reply?.startsWith("_")) message.respond(this.#state());
  }

  #hear(message) {
    const notice = parsed(message);
    if (notice?.incarnation !== this.#incarnation) return;
    // Else it is another process's, and no fence of ours.
    if (notice.new_incarnation === this.#incarnation) this.epoch = Math.max(this.epoch ?? 0, notice.new_epoch);
    this.onSuperseded(notice.epoch);
  }

  // Answered when all that a former process of the name held is back in the queue. Returns whether it was.
  async #greet() {
    const [incarnation, uptime, via] = [this.#incarnation, this.#uptime(), this.nats.info?.server_id];
    const hello = JSON.stringify({ incarnation, ttl, uptime, probe: true, via });
    let answer;
    try {
      answer = parsed(await this.nats.request(`liveness.hello.${name}`, hello, { timeout: HELLO_SECONDS * 1000 }));
    } catch {
      // There is no service just now, or no NATS.
    }
    if (!answer) return false;
    if (answer.epoch === null) {
      console.error(`${name} has to stop: ${answer.error}`);
      process.exit(1);
    }
    this.epoch = Math.max(this.epoch ?? 0, answer.epoch);
    return true;
  }

  async #greetAgain() {
    while (!this.#leaving && !(await this.#greet())) await sleep(1000, undefined, { ref: false });
  }

  async #follow() {
    for await (const { type } of this.nats.status()) {
      if (type === "disconnect") this.#connected = false;
      if (type === "reconnect") {
        this.#connected = true;
        this.#beat();
      }
    }
  }
}

function parsed(message) {
  try {
    return message.json();
  } catch (error) {
    console.error(`a message on ${message.subject} does not decode: ${error.message}`);
  }
}

async function carryOut(id, version, lost) {
  try {
    // What you would do. On SIGTERM it is finished first, and beaten for until then.
    await sleep(Number(WORK_SECONDS) * 1000, undefined, { signal: lost });
  } catch (error) {
    if (!lost.aborted) throw error;
    const { rowCount } = await database.query(GIVE_BACK, [id, name, version]);
    console.log(`${name} was given up, and has dropped ${id}${rowCount ? "" : ", which another may have"}`);
    return;
  }
  const { rowCount } = await database.query(FINISH, [id, name, version]);
  console.log(`${name} has ${rowCount ? "finished" : "lost"} ${id}`);
}

const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => stop.abort());

const database = new pg.Pool({ connectionString: DATABASE_URL, max: 1 });
database.on("error", (error) => console.error(`Postgres: ${error.message}`));
const heart = await Heart.start();
console.log(`${name} lives in epoch ${heart.epoch}`);
try {
  while (!stop.signal.aborted) {
    const lost = new AbortController();
    heart.onSuperseded = () => lost.abort();
    const { rows } = await database.query(CLAIM, [name, QUEUE]);
    if (rows.length === 0) {
      await sleep(IDLE_SECONDS * 1000, undefined, { signal: stop.signal }).catch(() => {});
      continue;
    }
    const [{ id, version }] = rows;
    heart.held.add(id);
    console.log(`${name} has claimed ${id}`);
    try {
      await carryOut(id, version, lost.signal);
    } finally {
      // Behind the last statement about it.
      heart.held.delete(id);
      heart.progress += 1;
    }
  }
} finally {
  // However it ends: what it holds goes back at once.
  await heart.stop();
  await database.end();
}
