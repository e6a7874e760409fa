// Does to a real queue what its arguments say, with whichever BullMQ it is pointed at, then prints the counts that the
// library itself gives.
//   node queue.cjs NODE_MODULES REDIS_PORT PREFIX QUEUE '[["add", "name", {options}], ["pause"], …]'
const path = require('path');

const [modules, port, prefix, name, steps] = process.argv.slice(2);
const bullmq = require(path.join(modules, 'bullmq'));
const settings = { connection: { host: '127.0.0.1', port: Number(port) }, prefix };

const doing = {
  add: (queue, [job, options, count]) =>
    Promise.all(Array.from({ length: count || 1 }, () => queue.add(job, { secret: 'not to be fetched' }, options))),
  flow: async (_queue, [parent, child]) => {
    const flows = new bullmq.FlowProducer(settings);
    const jobs = [{ name: child, queueName: `${name}-children` }];
    await flows.add({ name: parent, queueName: name, children: jobs });
    await flows.close();
  },
  pause: queue => queue.pause(),
  resume: queue => queue.resume(),
  concurrency: (queue, [most]) => queue.setGlobalConcurrency(most),
  rate: (queue, [max, duration]) => queue.setGlobalRateLimit(max, duration),
};

(async () => {
  const queue = new bullmq.Queue(name, settings);
  await queue.waitUntilReady();
  for (const [step, ...rest] of JSON.parse(steps)) await doing[step](queue, rest);
  const states = ['wait', 'paused', 'active', 'delayed', 'prioritized', 'failed', 'completed', 'waiting-children'];
  console.log(JSON.stringify(await queue.getJobCounts(...states)));
  await queue.close();
  process.exit(0);
})();
