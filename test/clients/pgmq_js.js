// What pgmq-js, a client for pgmq, has to offer: pgmq_js.js DATABASE...; see psycopg3.py
'use strict'
const { Pgmq } = require('pgmq-js')
const { show } = require('./calls.js')

const WAYS = [{ name: 'plain' }]
if (process.env.POOLER_HOST) WAYS.push({ name: 'pooled', host: process.env.POOLER_HOST, port: Number(process.env.POOLER_PORT) })

// A time says nothing when it is not in a message: the name of the column is printed with it
function showAll(value) {
  if (Array.isArray(value)) return `[${value.map(showAll).join(', ')}]`
  if (value === null || typeof value !== 'object' || value instanceof Date) return show(value)
  return `{${Object.entries(value).map(([name, each]) => `${name}=${showAll(each)}`).join(' | ')}}`
}

async function run({ host = process.env.PGHOST, port = Number(process.env.PGPORT) }, database) {
  const pgmq = await Pgmq.new({ host, port, database, user: process.env.PGUSER, ssl: false, max: 1 })
  const { queue, msg } = pgmq
  const call = async (name, promise) => {
    console.log(`-- ${name}`)
    try {
      console.log('result ' + showAll(await promise()))
    } catch (error) {
      console.log(`error ${error.code} ${error.message}`)
    }
  }

  await call('create', () => queue.create('js'))
  await call('create again', () => queue.create('js'))
  await call('createUnlogged', () => queue.createUnlogged('js_unlogged'))
  await call('list', async () => (await queue.list()).sort((a, b) => a.name < b.name ? -1 : 1))
  await call('send', () => msg.send('js', { id: 1, text: 'é' }))
  await call('send an array', () => msg.send('js', [1, 'two']))
  await call('send later', () => msg.send('js', { id: 3 }, 7200))
  await call('sendBatch', () => msg.sendBatch('js', [{ id: 4 }, { id: 5 }, 'six']))
  await call('sendBatch later', () => msg.sendBatch('js', [{ id: 7 }, null], 7200))
  await call('send to an unknown queue', () => msg.send('none', {}))
  await call('read', () => msg.read('js', 7200))
  await call('read, visible at once', () => msg.read('js'))
  await call('readBatch', () => msg.readBatch('js', 7200, 2))
  await call('read nothing', () => msg.read('js_unlogged', 30))
  await call('readBatch nothing', () => msg.readBatch('js_unlogged', 30, 5))
  await call('read an unknown queue', () => msg.read('none', 30))
  await call('setVt', () => msg.setVt('js', 1, 7200))
  await call('pop', () => msg.pop('js'))
  await call('pop nothing', () => msg.pop('js_unlogged'))
  await call('delete', () => msg.delete('js', 1))
  await call('delete again', () => msg.delete('js', 1))
  await call('deleteBatch', () => msg.deleteBatch('js', [2, 999]))
  await call('archive', () => msg.archive('js', 3))
  await call('archiveBatch', async () => (await msg.archiveBatch('js', [4, 6, 999])).sort())
  await call('getMetrics', () => queue.getMetrics('js'))
  await call('getMetrics of an unknown queue', () => queue.getMetrics('none'))
  await call('getAllMetrics', async () => (await queue.getAllMetrics()).sort((a, b) => a.queueName < b.queueName ? -1 : 1))
  await call('detachArchive', () => queue.detachArchive('js'))
  await call('purge', () => queue.purge('js'))
  await call('drop', () => queue.drop('js'))
  await call('drop', () => queue.drop('js_unlogged'))
  await call('drop again', () => queue.drop('js_unlogged'))
  await call('list', () => queue.list())
  await pgmq.close()
}

async function main() {
  for (const way of WAYS) {
    for (const database of process.argv.slice(2)) {
      console.log(`== ${database} pgmq-js, ${way.name}`)
      await run(way, database)
    }
  }
}

main()
