// What the programs in JavaScript share: the calls of calls.txt, and how results are printed.
'use strict'
const fs = require('fs')

function element(kind, text) {
  if (text === 'NULL') return null
  if (kind === 'integer') return Number(text)
  if (kind === 'bigint') return text          // larger than the numbers of JavaScript
  if (kind === 'jsonb') return JSON.parse(text)
  if (kind === 'timestamptz') return new Date(text)
  return text
}

function argument(text) {
  const at = text.indexOf(' ')
  const kind = text.slice(0, at)
  const value = text.slice(at + 1)
  if (kind.endsWith('[]') && value !== 'NULL') {
    return { kind, value: value.split(' ; ').map(each => element(kind.slice(0, -2), each)) }
  }
  return { kind, value: element(kind, value) }
}

function * calls(path, way, first) {
  for (const line of fs.readFileSync(path, 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const [, mark = '', text] = /^(?:(once|fetch|error|listen|told|session):)? ?(.*)$/.exec(line)
    if ((mark === 'once' && !first) || (way.pooled && ['listen', 'told', 'session'].includes(mark))) continue
    const [sql, ...args] = text.split(' | ')
    console.log(`-- ${mark} ${sql}`)
    yield { mark, sql: way.bare ? sql.replace(/(\$\d+)::[a-z]+(\[\])?/g, '$1') : sql, args: args.map(argument) }
  }
}

function show(value) {
  const kind = value === null ? 'null' : typeof value === 'object' ? value.constructor.name : typeof value
  return `${kind}:${Buffer.isBuffer(value) ? value.toString('hex') : JSON.stringify(value)}`
}

function printRows(columns, rows, shown = show) {
  console.log(['columns', ...columns.map(({ name, type }) => `${name}:${type < 16384 ? type : 'user'}`)].join(' '))
  for (const row of rows) console.log('row ' + columns.map(({ name, type }) => `${name}=${shown(row[name], type)}`).join(' | '))
}

function printError(error) {
  console.log(`error ${error.code} ${error.message}`)
}

module.exports = { calls, show, printRows, printError }
