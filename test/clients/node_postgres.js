// The calls of calls.txt with node-postgres: node_postgres.js CALLS DATABASE...; see psycopg3.py
'use strict'
const { Client } = require('pg')
const { calls, show, printRows, printError } = require('./calls.js')

const WAYS = [
  { name: 'plain' },
  { name: 'prepared', named: true },
  { name: 'binary', binary: true },
  { name: 'without casts', bare: true }
]
if (process.env.POOLER_HOST) WAYS.push({ name: 'pooled', pooled: true })

// Objects and dates as they are, but an array would become one of SQL, and a string is not put into quotes
function value({ kind, value }) {
  if (kind === 'jsonb' && value !== null && !(typeof value === 'object' && !Array.isArray(value))) return JSON.stringify(value)
  return value
}

// It takes binary results through text, and so spoils times and records
function showBinary(value, type) {
  return value instanceof Date || type >= 16384 ? 'spoiled' : show(value)
}

async function run(way, database, path, first) {
  const pooler = way.pooled ? { host: process.env.POOLER_HOST, port: Number(process.env.POOLER_PORT) } : {}
  const client = new Client({ database, ...pooler })
  let tell
  const told = new Promise(resolve => { tell = resolve })
  client.on('notification', tell)
  client.on('notice', notice => console.log(`notice ${notice.code} ${notice.message}`))
  await client.connect()
  const names = new Map()
  for (const { mark, sql, args } of calls(path, way, first)) {
    if (mark === 'listen') {
      await client.query(`LISTEN "${sql}"`)
      continue
    }
    if (mark === 'told') {
      const { channel, payload } = await told
      console.log(`told ${channel} ${JSON.stringify(payload)}`)
      continue
    }
    if (!names.has(sql)) names.set(sql, `s${names.size}`)
    const query = { text: sql, values: args.map(value), binary: way.binary }
    if (way.named) query.name = names.get(sql)
    // after an error it would wait for ever
    if (mark === 'fetch' && !way.bare) query.rows = 2
    try {
      const { fields, rows, command } = await client.query(query)
      if (fields.length) printRows(fields.map(({ name, dataTypeID }) => ({ name, type: dataTypeID })), rows, way.binary ? showBinary : show)
      else console.log(`done ${command}`)
    } catch (error) {
      printError(error)
    }
  }
  await client.end()
}

async function main() {
  const [path, ...databases] = process.argv.slice(2)
  for (const way of WAYS) {
    for (const database of databases) {
      console.log(`== ${database} node-postgres, ${way.name}`)
      await run(way, database, path, way === WAYS[0])
    }
  }
}

main()
