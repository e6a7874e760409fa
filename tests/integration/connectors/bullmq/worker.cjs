// A worker that does with a job what its data-free name says: "ok", "fail <words>", "hang", or "block" (its event loop).
//   node worker.cjs NODE_MODULES REDIS_PORT PREFIX QUEUE '{worker options}'
const path = require('path');

const [modules, port, prefix, name, options] = process.argv.slice(2);
const { Worker } = require(path.join(modules, 'bullmq'));

const worker = new Worker(
  name,
  async job => {
    const [what, ...words] = job.name.split(' ');
    if (what === 'fail') throw new Error(words.join(' '));
    if (what === 'hang') await new Promise(() => {});
    if (what === 'block') for (;;);
    await new Promise(done => setTimeout(done, 50));
  },
  { connection: { host: '127.0.0.1', port: Number(port) }, prefix, ...JSON.parse(options) },
);
worker.on('error', () => {});
worker.waitUntilReady().then(() => console.log('ready'));
