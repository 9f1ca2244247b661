// The calls of calls.txt with postgres.js: postgres_js.js CALLS DATABASE...; see psycopg3.py
'use strict'
const postgres = require('postgres')
const { calls, printRows, printError } = require('./calls.js')

const WAYS = [
  { name: 'template', template: true },
  { name: 'text' },
  { name: 'not prepared', unprepared: true },
  { name: 'without casts', template: true, bare: true }
]
if (process.env.POOLER_HOST) WAYS.push({ name: 'pooled', pooled: true, unprepared: true, template: true })

function statement(sql, way, text, args) {
  const values = args.map(({ kind, value }) => kind === 'jsonb' && value !== null ? sql.json(value) : value)
  if (!way.template) return sql.unsafe(text, values, { prepare: !way.unprepared })
  const strings = text.split(/\$\d+/)
  strings.raw = strings
  return sql(strings, ...values)
}

async function run(way, database, path, first) {
  const pooler = way.pooled ? { host: process.env.POOLER_HOST, port: Number(process.env.POOLER_PORT) } : {}
  const sql = postgres({
    database,
    ...pooler,
    max: 1,
    prepare: !way.unprepared,
    onnotice: notice => console.log(`notice ${notice.code} ${notice.message}`)
  })
  let tell
  const told = new Promise(resolve => { tell = resolve })
  for (const { mark, sql: text, args } of calls(path, way, first)) {
    try {
      if (mark === 'listen') {
        await sql.listen(text, payload => tell(payload))
      } else if (mark === 'told') {
        console.log(`told ${JSON.stringify(await told)}`)
      } else if (mark === 'fetch') {
        const rows = []
        let columns
        await statement(sql, way, text, args).cursor(2, some => { columns = some.columns || columns; rows.push(...some) })
        printRows(columns || [], rows)
      } else {
        const result = await statement(sql, way, text, args)
        if (result.columns) printRows(result.columns, result)
        else console.log(`done ${result.command}`)
      }
    } catch (error) {
      printError(error)
    }
  }
  await sql.end()
}

async function main() {
  const [path, ...databases] = process.argv.slice(2)
  for (const way of WAYS) {
    for (const database of databases) {
      console.log(`== ${database} postgres.js, ${way.name}`)
      await run(way, database, path, way === WAYS[0])
    }
  }
}

main()
