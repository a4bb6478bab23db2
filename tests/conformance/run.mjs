// Runs the public suite http-cache-tests against a URL and prints what came of it as JSON.
//
//   node run.mjs SUITE_FOLDER BASE_URL [TEST_ID...]
//
// The suite moved its files between versions; both layouts are known here.
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, base, ...ids] = process.argv.slice(2)
const load = path => import(pathToFileURL(resolve(suite, path)))

const isNew = existsSync(join(suite, 'test-engine'))
const { runTests, getResults } = await load(isNew ? 'test-engine/client/runner.mjs' : 'client/runner.mjs')
let groups = (await load('tests/index.mjs')).default
if (!isNew) groups = groups.concat((await load('tests/surrogate-control.mjs')).default)
// What only a browser's cache can be asked the suite leaves out by itself.
const wanted = groups.map(group => ({
  ...group,
  tests: group.tests.filter(test => !test.browser_only && (ids.length === 0 || ids.includes(test.id)))
}))
const tests = wanted.flatMap(group =>
  group.tests.map(test => ({ id: test.id, group: group.id, kind: test.kind || 'required', name: test.name })))

// The suite talks while it works; only the report may reach standard output.
console.log = console.error
if (isNew) {
  await runTests(wanted, false, base)
} else {
  const { default: fetch } = await import(pathToFileURL(resolve(suite, '../node-fetch/lib/index.js')))
  await runTests(wanted, fetch, false, base)
}
const results = getResults()
const outcome = id => id in results
  ? { passed: results[id] === true, why: [results[id]].flat().slice(1).join(' ') }
  : { passed: false, why: 'no result' }
const report = tests.map(test => ({ ...test, ...outcome(test.id) }))
// Exits when it is written: the suite may have left connections open.
process.stdout.write(JSON.stringify(report), () => process.exit(0))
