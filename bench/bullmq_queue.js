// One BullMQ queue under measure: `NODE_PATH=FOLDER node bullmq_queue.js SOCKET JOB RESULT`.
//
// Each line on stdin is an order, each line on stdout its answer, in seconds:
//   ready                      nothing
//   create COUNT BATCH CALLS   jobs by addBulk, BATCH in a call, CALLS at once
//   work COUNT CONCURRENCY     jobs by a Worker that only returns RESULT, until so many have completed
const { createInterface } = require("node:readline");
const { Redis } = require("ioredis");
const { Queue, Worker } = require("bullmq");

const NAME = "bench";
const [socket, job, result] = process.argv.slice(2);
const connection = new Redis(socket, { maxRetriesPerRequest: null });
const queue = new Queue(NAME, { connection });

async function create(count, batch, calls) {
  const jobs = Array(batch).fill(JSON.parse(job));
  let left = count;
  async function add() {
    while (left > 0) {
      left -= batch;
      await queue.addBulk(jobs);
    }
  }
  const begun = performance.now();
  await Promise.all(Array.from({ length: calls }, add));
  return performance.now() - begun;
}

async function work(count, concurrency) {
  const answer = JSON.parse(result);
  const worker = new Worker(NAME, async () => answer, { connection, concurrency, autorun: false });
  await worker.waitUntilReady();
  const begun = performance.now();
  await new Promise((resolve, reject) => {
    let left = count;
    worker.on("completed", () => --left || resolve());
    worker.on("failed", (_, error) => reject(error));
    worker.on("error", reject);
    worker.run().catch(reject);
  });
  const took = performance.now() - begun;
  await worker.close();
  return took;
}

const orders = { ready: () => 0, create, work };

async function main() {
  await queue.waitUntilReady();
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, ...numbers] = line.split(" ");
    const took = await orders[name](...numbers.map(Number));
    console.log(took / 1000);
  }
  await queue.close();
  connection.disconnect();
}

main();
